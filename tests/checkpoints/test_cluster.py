"""A merge on a cluster of two processes, one of which is killed halfway, gives the same bits."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import distributed
import pytest
from safetensors.torch import save_file

from reference_impls.__main__ import main
from reference_impls.checkpoints import cluster
from reference_impls.checkpoints.cluster import work as real_work
from reference_impls.checkpoints.expand import apply
from reference_impls.checkpoints.files import Checkpoint
from reference_impls.checkpoints.writing import Output
from tests.checkpoints.models import family


def weights(folder: str) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in Path(folder).glob("*.safetensors")}


@pytest.mark.parametrize("options", [{"density": 0.3}, {"trim": "tensor", "zero_sum": "plus"}], ids=["joint", "single"])
def test_every_tensor_is_in_one_part_and_sees_what_it_needs(options: dict, tmp_path: Path) -> None:
    family(tmp_path)
    recipe = apply("ties_merging", [Checkpoint.open(tmp_path / name) for name in ("base", "a", "b")], options, has_base=True)
    names = [task.name for task in recipe.tasks][3:]
    parts = cluster.split(recipe, names, 4)
    assert len(parts) == 4 and sorted(name for part in parts for name in part.names) == sorted(names)
    for part in parts:
        assert part.names <= {task.name for task in part.tasks}
        assert len(part.tasks) == (len(recipe.tasks) if "trim" not in options else len(part.names))
    sizes = [sum(recipe.like(task).numel for task in recipe.tasks if task.name in part.names) for part in parts]
    assert max(sizes) < 2 * min(sizes)


def test_without_dask_the_way_out_is_named(tmp_path: Path, monkeypatch, capsys) -> None:
    family(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    assert main(["merge", "uniform_soup", "--models", "a", "b", "-o", "out", "--quiet", "--dask", "tcp://127.0.0.1:1"]) == 1
    assert "model-fusion-atlas[dask]" in capsys.readouterr().err


def slow_work(*arguments: object) -> None:
    """Work on a part after a while, so that the others still wait when the first is done."""
    time.sleep(0.2)
    real_work(*arguments)


@pytest.fixture(scope="module")
def two_workers() -> Iterator[distributed.LocalCluster]:
    settings = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "host": "127.0.0.1"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        with distributed.LocalCluster(**settings) as local:
            yield local


@pytest.mark.slow
def test_a_worker_killed_halfway_changes_no_bit(tmp_path: Path, monkeypatch, capsys, two_workers) -> None:
    models = family(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cluster, "work", slow_work)
    finish, killed = Output.finish, []

    def kill_one(self: Output, tensor: str) -> None:
        if not killed:
            address, process = next(iter(client.run(os.getpid).items()))
            os.kill(process, signal.SIGKILL)
            killed.append(address)
        finish(self, tensor)

    arguments = ("merge", "dare", "--base", "base", "--models", "a", "b", "--density", "0.5", "--merge", "ties", "--quiet")
    assert main([*arguments, "-o", "here"]) == 0  # random masks, and a threshold of the whole model
    address = two_workers.scheduler_address
    with distributed.Client(address, set_as_default=False) as client:
        monkeypatch.setattr(Output, "finish", kill_one)
        assert main([*arguments, "-o", "there", "--dask", address]) == 0
        assert killed and killed[0] not in client.scheduler_info()["workers"]
        assert weights("there") == weights("here") and not [*Path("there").glob(".*")]

        models["a"]["lm_head.weight"][2, 3] = float("nan")  # what a worker refuses is said here
        save_file(models["a"], "a/model.safetensors")
        capsys.readouterr()
        soup = ("uniform_soup", "--models", "a", "b")
        assert main(["merge", *soup, "--quiet", "-o", "out", "--dask", address]) == 1
        assert "tensor 'lm_head.weight' holds nan at [2, 3]" in capsys.readouterr().err and not Path("out").exists()


@pytest.mark.slow
def test_workers_send_the_files_of_an_output_in_a_storage_themselves(tmp_path: Path, monkeypatch, two_workers) -> None:
    monkeypatch.chdir(tmp_path)
    family(tmp_path)
    models = ("--base", f"file://{tmp_path}/base", "--models", "a", "b")
    arguments = ("merge", "ties_merging", *models, "--shard-size", "6kB", "--quiet")
    assert main([*arguments, "-o", "here"]) == 0
    assert main([*arguments, "-o", f"file://{tmp_path}/there", "--dask", two_workers.scheduler_address]) == 0
    assert weights("there") == weights("here") != {}
