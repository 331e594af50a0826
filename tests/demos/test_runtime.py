"""The browser's runtime, in plain CPython: PyTorch's random numbers, and the stand-ins for what borch, SciPy and POT lack."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import numpy as np
import ot
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from tests.demos.on_borch import ROOT
from tools import runtime

sys.path.insert(0, str(ROOT / "docs" / "assets" / "lab"))
import torch_on_borch
import torch_random


@pytest.mark.parametrize("seed", [0, 1, 2**31])
@pytest.mark.parametrize("size", [1, 7, 15, 16, 17, 40, 1000])
def test_a_seed_gives_pytorchs_random_numbers(seed, size):
    theirs, ours = torch.Generator().manual_seed(seed), torch_random.Generator().manual_seed(seed)
    assert torch.rand(size, generator=theirs).numpy() == pytest.approx(ours.uniform(size), abs=0)
    assert torch.randn(size, generator=theirs).numpy() == pytest.approx(ours.normal(size), abs=1e-6)
    doubles = torch.randn(size, generator=theirs, dtype=torch.float64).numpy()
    assert doubles == pytest.approx(ours.normal(size, double=True), abs=1e-12)
    assert torch.randperm(size, generator=theirs).tolist() == ours.permutation(size).tolist()
    assert torch.randint(3, 11, (size,), generator=theirs).tolist() == ours.integers(3, 11, size).tolist()
    assert torch.randint(2**31, (size,), generator=theirs).tolist() == ours.integers(0, 2**31, size).tolist()
    assert torch.empty(size).exponential_(generator=theirs).numpy() == pytest.approx(ours.exponential(size), rel=1e-6)
    weights = torch.rand(3, size, generator=theirs)
    ours.uniform(3 * size)
    drawn = torch.multinomial(weights, min(size, 4), generator=theirs)
    assert drawn.tolist() == ours.choice(weights.numpy(), min(size, 4)).tolist()
    assert torch.rand(1, generator=theirs).item() == ours.uniform(1)[0], "both streams are at the same place"


@pytest.mark.parametrize("shape", [(1, 1), (6, 6), (4, 9), (9, 4), (30, 30)])
def test_assignments_are_scipys(shape):
    for seed in range(20):
        cost = np.random.default_rng(seed).normal(size=shape)
        for maximize in (False, True):
            ours, theirs = torch_on_borch.linear_sum_assignment(cost, maximize), linear_sum_assignment(cost, maximize)
            assert [part.tolist() for part in ours] == [part.tolist() for part in theirs]


@pytest.mark.parametrize("shape", [(5, 5), (4, 6), (6, 3)])
def test_transport_plans_are_pots(shape):
    cost = np.random.default_rng(1).random(shape)
    rows, columns = (np.full(size, 1 / size) for size in shape)
    tensors = [torch_on_borch.Tensor(part) for part in (rows, columns, cost)]
    exact = torch_on_borch.emd(*tensors)._array
    assert exact.sum(0) == pytest.approx(columns, abs=1e-6) and exact.sum(1) == pytest.approx(rows, abs=1e-6)
    assert (exact * cost).sum() == pytest.approx((ot.emd(rows, columns, cost) * cost).sum(), abs=1e-6)
    soft = ot.sinkhorn(rows, columns, cost, 0.1, method="sinkhorn_log", numItermax=2000)
    assert torch_on_borch.sinkhorn(*tensors, 0.1, numItermax=2000)._array == pytest.approx(soft, abs=1e-6)


PROBE = """
import sys, warnings
sys.path[:0] = [{root!r}, {lab!r}]
import torch_on_borch
torch_on_borch.install()
warnings.simplefilter("ignore")
import reference_impls as ri
from tests.methods import test_contract as contract, toy_values
for name in contract.METHODS:
    pool = toy_values.tensor_inputs() if contract.sees_only_tensors(name) else toy_values.network_inputs()
    try:
        result = contract.tensors(getattr(ri, name)(**contract.arguments(name, pool, "cpu")))
        print(name, all(not t.is_floating_point() or bool(t.isfinite().all()) for t in result))
    except Exception as error:
        print(name, type(error).__name__)
"""


@pytest.mark.slow
def test_all_methods_but_three_run_on_the_inputs_of_the_contract_test():
    code = PROBE.format(root=str(ROOT), lab=str(ROOT / "docs" / "assets" / "lab"))
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=900, check=True)
    answers = dict(line.split() for line in found.stdout.splitlines())
    refused = {"partial_linearization", "tangent_task_arithmetic", "gnn_amalgamation"}  # forward mode, double backward
    assert {name for name, answer in answers.items() if answer != "True"} == refused
    assert {answers[name] for name in refused} == {"BorchError"} and len(answers) > 125


# --- the runtime's files ---------------------------------------------------------------------------------------------


@pytest.fixture
def distribution(tmp_path, monkeypatch):
    """A folder like Pyodide's, with other bytes; and a site."""
    folder, site = tmp_path / "pyodide", tmp_path / "site"
    folder.mkdir()
    (site / runtime.LAB).mkdir(parents=True)
    (site / runtime.LAB / "runtime.json").write_text("{}")
    packages = {"numpy": {"file_name": "numpy.whl", "sha256": hashlib.sha256(b"numpy").hexdigest(), "depends": []}}
    lock = json.dumps({"packages": packages}).encode()
    files = {"pyodide.mjs": b"a", "pyodide.asm.wasm": b"b", "pyodide-lock.json": lock}
    for name, data in (files | {"numpy.whl": b"numpy", "borch.whl": b"borch"}).items():
        (folder / name).write_bytes(data)
    monkeypatch.setattr(runtime, "BORCH", {"borch.whl": hashlib.sha256(b"borch").hexdigest()})
    return folder, site, {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}


def test_the_runtime_is_copied_and_named(distribution):
    folder, site, sums = distribution
    size = runtime.install(folder, site, sums)
    settings = json.loads((site / runtime.LAB / "runtime.json").read_text())
    assert settings["index"] == "assets/lab/runtime/" and settings["bytes"] == size
    assert settings["wheels"][0]["file"] == "borch.whl"
    assert {file.name for file in (site / settings["index"]).iterdir()} == {*sums, "numpy.whl", "borch.whl"}


@pytest.mark.parametrize("name", ["pyodide.asm.wasm", "numpy.whl", "borch.whl", "pyodide-lock.json"])
def test_a_file_that_is_not_the_expected_one_is_refused_and_nothing_is_copied(distribution, name):
    folder, site, sums = distribution
    for spoil in (lambda file: file.write_bytes(b"other"), lambda file: file.unlink()):
        spoil(folder / name)
        with pytest.raises(ValueError, match=name):
            runtime.install(folder, site, sums)
        assert (site / runtime.LAB / "runtime.json").read_text() == "{}" and not (site / runtime.LAB / "runtime").exists()


def test_the_command_says_what_is_wrong(tmp_path, capsys):
    assert runtime.main([str(tmp_path), "--site", str(tmp_path)]) == 1
    assert "holds no built site; run `make build` first" in capsys.readouterr().err
