"""The table of methods that run on files covers the catalog."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import reference_impls as ri
from reference_impls.checkpoints.combine import WAYS
from reference_impls.checkpoints.errors import CheckpointError
from reference_impls.checkpoints.methods import COMBINED, ELSEWHERE, METHODS, function, is_joint

CATALOG = Path(__file__).parents[2] / "catalog" / "methods"


def test_every_method_without_data_or_training_runs_on_files_or_says_why_not() -> None:
    without_data = set()
    for file in CATALOG.glob("*/*.yaml"):
        needs = yaml.safe_load(file.read_text())["requirements"]
        if needs["data"] == "none" and not needs["gradients"] and not needs["training"] and file.stem in ri.methods():
            without_data.add(file.stem)
    variants = {name for name, streaming in METHODS.items() if streaming.module}
    assert without_data == (METHODS.keys() | COMBINED.keys() | ELSEWHERE.keys()) - variants
    assert ELSEWHERE.keys() == {"logit_ensemble"}  # no state dict comes out of it


def test_no_method_is_in_two_tables() -> None:
    assert len({*METHODS, *COMBINED, *ELSEWHERE}) == len(METHODS) + len(COMBINED) + len(ELSEWHERE)


@pytest.mark.parametrize("name", METHODS)
def test_every_entry_is_a_function(name: str) -> None:
    assert function(name).__name__ == name


@pytest.mark.parametrize(
    ("method", "options", "expected"),
    [
        ("ties_merging", {}, True),
        ("ties_merging", {"trim": "tensor"}, True),  # the majority sign is the whole model's
        ("ties_merging", {"trim": "tensor", "zero_sum": "plus"}, False),
        ("ties_merging", {"density": [1.0, 1.0], "zero_sum": "plus"}, False),
        ("karcher_mean", {}, False),
        ("karcher_mean", {"scope": "model"}, True),
        ("pcb_merging", {}, True),
        ("weight_matching", {}, True),
    ],
)
def test_what_looks_at_the_whole_model_is_told_by_the_options(method: str, options: dict, expected: bool) -> None:
    assert is_joint(method, options) is expected


def test_other_methods_are_refused_with_the_reason() -> None:
    with pytest.raises(CheckpointError, match="regmean can't run on checkpoints: it needs data"):
        function("regmean")
    with pytest.raises(CheckpointError, match="git_rebasin can't run on checkpoints: there is no such method"):
        function("git_rebasin")
    with pytest.raises(CheckpointError, match="logit_ensemble can't run on checkpoints: it combines predictions, not weights"):
        function("logit_ensemble")


def test_what_takes_adapters_names_the_command_that_does_it() -> None:
    with pytest.raises(CheckpointError, match="lora_lego takes LoRA adapters, not models: use `combine --how lego`$"):
        function("lora_lego")
    with pytest.raises(CheckpointError, match="use `combine --how cat` or `combine --how svd` or"):
        function("pem_composition")
    assert {way for ways in COMBINED.values() for way in ways} <= {*WAYS}
