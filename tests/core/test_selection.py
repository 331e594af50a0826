"""Thresholds by counting are exact: the same as by sorting."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from reference_impls.core import selection
from reference_impls.core.blocks import ranges
from reference_impls.core.selection import keep_at_least, keep_between, keep_largest, largest_magnitudes, one_each
from reference_impls.core.selection import order_by_magnitude


def by_sorting(tensors: list[Tensor], ranks: list[int]) -> list[float]:
    ranked = torch.cat([tensor.reshape(-1) for tensor in tensors]).abs().sort(descending=True).values
    return [ranked[k - 1].item() for k in ranks]


@pytest.fixture(autouse=True)
def count_small_tensors_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "SMALL", 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spread", [0.0, 1.0, 8.0])  # of the exponents
def test_counting_finds_what_sorting_finds(dtype: torch.dtype, spread: float) -> None:
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(shape, generator=generator, dtype=dtype)  # noqa: E731
    tensors = [draw(*shape) * (spread * draw(*shape)).exp() for shape in ((70_000,), (30, 40), (), (0, 3))]
    ranks = [1, 2, 35_000, 60_001, 71_200, 71_201]
    assert largest_magnitudes(tensors, ranks) == by_sorting(tensors, ranks)


def test_half_precision_differences_have_many_equal_magnitudes() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(50_000, generator=generator).bfloat16().float() for _ in range(2))
    ranks = [*range(1, 50_000, 4_999)]
    assert largest_magnitudes([a - b], ranks) == by_sorting([a - b], ranks)
    threshold = largest_magnitudes([a - b], [10_000])[0]
    kept = keep_largest(a - b, 10_000)
    assert torch.equal(kept, torch.where((a - b).abs() >= threshold, a - b, 0))
    assert (kept != 0).sum() > 10_000  # all that equal the last one


def test_a_sample_that_misleads_costs_a_pass_and_not_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200_000, generator=generator)
    for start, _ in ranges(x.shape):
        x[start : start + 1024] *= 1e-3  # what the sample sees
    count, windows = selection._count, []
    monkeypatch.setattr(selection, "_count", lambda *args, **more: windows.append(more["windows"]) or count(*args, **more))
    assert largest_magnitudes([x], [20_000, 180_000]) == by_sorting([x], [20_000, 180_000])
    assert windows[1][0].last == torch.iinfo(torch.int32).max  # the first was wrong


@pytest.mark.parametrize("bits", [24, 12])  # of the mantissa
def test_one_count_is_enough_for_a_model_and_for_short_mantissas(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(300_000, generator=generator) for _ in range(2 if bits == 24 else 1)]
    tensors = [(tensor.view(torch.int32) >> 24 - bits << 24 - bits).view(torch.float32) for tensor in tensors]
    count, counted = selection._count, []
    monkeypatch.setattr(selection, "_count", lambda *args, **more: counted.append(1) or count(*args, **more))
    assert largest_magnitudes(tensors, [200_000]) == by_sorting(tensors, [200_000])
    assert len(counted) == len(tensors)


@pytest.mark.parametrize("small", [0, 1000])
def test_a_tensor_that_wants_a_gradient_has_thresholds_too(small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "SMALL", small)
    x = torch.randn(300, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert largest_magnitudes([x], [10, 10, 200]) == by_sorting([x.detach()], [10, 10, 200])


def test_a_rank_out_of_range_is_refused() -> None:
    for rank in (0, 4):
        with pytest.raises(ValueError, match="of 3 entries, each is from 1 to 3"):
            largest_magnitudes([torch.ones(3)], [rank])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=30), st.data())
def test_counting_is_exact_for_any_numbers(values: list[float], data: st.DataObject) -> None:
    x = torch.tensor(values)
    k = data.draw(st.integers(1, len(values)))
    assert largest_magnitudes([x], [k]) == by_sorting([x], [k])


def test_limits_belong_to_what_is_kept() -> None:
    x = torch.tensor([0.0, 1e-45, -0.1, 0.1, 0.5, -3.0])
    assert keep_at_least(x, 0.1).tolist() == [0.0, 0.0, x[2].item(), x[3].item(), 0.5, -3.0]
    assert torch.equal(keep_at_least(x, 0.0), x)
    assert keep_between(x, 0.5, 0.5).tolist() == [0.0, 0.0, 0.0, 0.0, 0.5, 0.0]


def test_equal_magnitudes_keep_their_order() -> None:
    rows = torch.tensor([[2.0, -1.0, 1.0, 0.0], [5.0, 5.0, -5.0, 5.0]])
    assert order_by_magnitude(rows).tolist() == [[3, 1, 2, 0], [0, 1, 2, 3]]
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(40, 300, generator=generator).bfloat16().float()
    assert torch.equal(order_by_magnitude(rows), rows.abs().argsort(dim=1, stable=True))
    assert torch.equal(order_by_magnitude(rows.double()), rows.abs().argsort(dim=1, stable=True))


def test_one_number_for_all_or_one_each() -> None:
    with pytest.raises(ValueError, match="density has 2 values for 3 models"):
        one_each("density", [0.1, 0.2], 3)
