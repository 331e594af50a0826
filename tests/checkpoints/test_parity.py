"""mergekit's recorded cases, run from a configuration over files: the variant "mergekit" gives its numbers."""

from __future__ import annotations

import json
from itertools import cycle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from reference_impls.__main__ import main
from reference_impls.checkpoints.mergekit import DIFFERENCES, METHODS
from reference_impls.task_vectors import dare, della
from tests.parity.load import Case, cases

ALIASES = {"ties_bf16": "ties", "ties_zeros": "ties"}
DIFFERENT = {  # case -> topic, tensors
    "mergekit.ties_bf16.022.open": ("Precision and equal magnitudes", None),
    "mergekit.slerp.005.open": ("Zero vector", {"zero"}),
}


def method_of(case: Case) -> str:
    name = case.id.split(".")[1]
    return ALIASES.get(name, name)


CASES = [case for case in cases() if case.peer.startswith("mergekit") and method_of(case) in METHODS]


def write_config(case: Case, folder: Path) -> Path:
    """Write the case's models and a configuration that asks for the case."""
    name, models = method_of(case), case.inputs["models"]
    method = METHODS[name]
    base = case.inputs.get("base", models[0] if method.base == "first" else None)
    others = models[1:] if method.base == "first" else models
    each = {key: value for key, value in case.params.items() if method.parameters[key].each}
    entries = []
    for number, model in enumerate(others):
        save_file(model, folder / f"model{number}.safetensors")
        parameters = {key: values[number] for key, values in each.items()}
        entries.append({"model": str(folder / f"model{number}.safetensors"), "parameters": parameters})
    config = {"merge_method": name, "models": entries, "variant": "mergekit"}
    config["parameters"] = {key: value for key, value in case.params.items() if key not in each}
    if base is not None:
        save_file(base, folder / "base.safetensors")
        config["base_model"] = str(folder / "base.safetensors")
    (folder / "config.yml").write_text(json.dumps(config))
    return folder / "config.yml"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_case_from_a_configuration(case: Case, tmp_path: Path, monkeypatch) -> None:
    if "keep_mask" in case.outputs:  # what mergekit drew is drawn again
        masks = cycle(case.outputs["keep_mask"])

        def replay(tau: dict, *_: object) -> dict:
            drawn = next(masks)
            fit = all(key in drawn and drawn[key].shape == tensor.shape for key, tensor in tau.items())  # else options are tried
            return {key: drawn[key].float() if fit else torch.ones(tensor.shape) for key, tensor in tau.items()}

        monkeypatch.setattr(dare, "random_mask", replay)
        monkeypatch.setattr(della, "draw_mask", replay)
    config = write_config(case, tmp_path)
    assert main(["merge", str(config), str(tmp_path / "out"), "--quiet", "--workers", "1"]) == 0
    got, want = load_file(tmp_path / "out/model.safetensors"), case.outputs["merged"]
    assert got.keys() == want.keys()
    close = {key: torch.allclose(got[key].double(), want[key].double(), rtol=case.rtol, atol=case.atol) for key in want}
    topic, tensors = DIFFERENT.get(case.id, ("", set()))
    if topic:
        assert topic in [d.topic for d in DIFFERENCES[method_of(case)] if "mergekit" in d.variants]
        assert {key for key in close if not close[key]} == (tensors or {key for key in close if not close[key]}) != set()
    else:
        assert all(close.values()), close


def test_all_twenty_methods_have_a_case() -> None:
    assert {method_of(case) for case in CASES} == set(METHODS)
