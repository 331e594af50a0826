"""Every recorded case is matched within its tolerance, or is a documented difference that this test shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import reference_impls as ri
from tests.parity.adapters import outcome
from tests.parity.load import Case, cases

ROOT = Path(__file__).parents[2]


def agrees(got: Any, want: Any, case: Case, at_least: float = 0.0) -> bool:
    if isinstance(want, dict):
        return all(agrees(got[key], want[key], case) for key in want)
    if isinstance(want, list):
        return len(got) == len(want) and all(agrees(g, w, case) for g, w in zip(got, want))
    got, want = (torch.as_tensor(v).double() for v in (got, want))
    if at_least:
        return bool(got >= at_least * want)
    return got.shape == want.shape and torch.allclose(got, want, rtol=case.rtol, atol=case.atol)


def without(tensors: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in tensors.items() if key not in names}


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.id)
def test_case_is_matched_or_a_documented_difference(case: Case) -> None:
    result = outcome(case)
    assert result.ours and set(result.ours) <= set(case.outputs)
    same = all(agrees(result.ours[name], case.outputs[name], case, result.at_least) for name in result.ours)
    if result.differs:
        assert not same, "the numbers agree: this is no difference"
        chapter = ri.methods()[result.method].split(".")[1]
        record = yaml.safe_load((ROOT / f"catalog/methods/{chapter}/{result.method}.yaml").read_text())
        assert result.differs in [entry["topic"] for entry in record["differs"]]
    else:
        assert same
    if result.only_in:
        others = {name: without(case.outputs[name], result.only_in) for name in result.ours}
        assert all(agrees(result.ours[name], others[name], case) for name in others)
