"""Numbers and entries of tensors that are read in blocks are those of the tensors in memory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from reference_impls.core import blocks
from reference_impls.core.blocks import Stored, again, each, entrywise, inner_products, ranges, rowwise, totals, whole, working_in


def streamed(tensor: Tensor, keep: bool = False, read: list[int] | None = None) -> Stored:
    def block(start: int, stop: int) -> Tensor:
        if read is not None:
            read.append(start)
        return tensor.reshape(-1)[start:stop]

    return Stored(block, tensor.shape, tensor.dtype, tensor.device, keep)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 100)


@pytest.mark.parametrize("shape", [(), (1,), (250,), (30, 7), (3, 40, 5), (2, 5000), (0, 3), (4, 0)])
def test_ranges_cover_a_tensor_once_and_in_whole_rows(shape: tuple[int, ...]) -> None:
    size = torch.empty(shape).numel()
    found = [*ranges(shape)]
    assert [start for start, _ in found] == [0, *(stop for _, stop in found[:-1])]
    assert found[-1][1] == size
    if shape == (30, 7):
        assert found[:2] == [(0, 98), (98, 196)]


def test_entries_rows_and_whole_tensors() -> None:
    a, b = draw(30, 7), draw(30, 7, seed=1)
    centre = lambda x, y: x - y.mean(dim=-1, keepdim=True)  # noqa: E731
    rank = lambda x, y: x.reshape(-1).argsort().reshape(x.shape) * y  # noqa: E731
    for apply, function in ((entrywise, torch.mul), (rowwise, centre), (whole, rank)):
        assert torch.equal(apply(function, streamed(a), streamed(b)).materialize(), function(a, b))


def test_a_vector_and_very_long_rows_are_rows_as_well() -> None:
    for x in (draw(250), draw(2, 5000)):
        expected = x - x.mean(dim=-1, keepdim=True)
        assert torch.equal(rowwise(lambda x: x - x.mean(dim=-1, keepdim=True), streamed(x)).materialize(), expected)


def test_the_dtype_of_a_result_is_known_before_a_block_is_read() -> None:
    read: list[int] = []
    x = streamed(draw(30, 7), read=read)
    assert entrywise(lambda x: x > 0, x).dtype == torch.bool
    assert rowwise(lambda x: x.double(), x.to(torch.bfloat16)).dtype == torch.float64
    assert read == []


def test_what_is_needed_again_is_read_once_where_it_may_be_kept() -> None:
    for keep, times in ((True, 1), (False, 2)):
        read: list[int] = []
        x = again(entrywise(torch.neg, streamed(draw(250), keep, read)))
        totals(x)
        x.materialize()
        assert read == [0, 100, 200] * times


def test_a_shared_parent_is_read_once_a_block() -> None:
    read: list[int] = []
    base = streamed(draw(250), read=read)
    totals(entrywise(torch.sub, streamed(draw(250, seed=1)), base), entrywise(torch.sub, streamed(draw(250, seed=2)), base))
    assert read == [0, 100, 200]


def test_sums_and_inner_products() -> None:
    x, y = draw(50, 33).double(), draw(50, 33, seed=1).double()
    assert totals(x, y) == pytest.approx([x.sum().item(), y.sum().item()])
    expected = torch.stack([x.flatten(), y.flatten()])
    assert torch.allclose(inner_products([x, y]), expected @ expected.T)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_are_the_same_in_memory_and_in_blocks_for_any_number_of_threads(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 65_536)
    x, y = draw(300_001).to(dtype), draw(300_001, seed=1).to(dtype)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found += [(totals(a, b), inner_products([a, b]).tolist()) for a, b in ((x, y), (streamed(x), streamed(y)))]
    finally:
        torch.set_num_threads(before)
    assert found == found[:1] * 6


def test_each_keeps_the_order_in_a_pool() -> None:
    tensors = [torch.full((n,), 1.0) for n in range(20)]
    with ThreadPoolExecutor(4) as pool, working_in(pool):
        assert each(totals, tensors) == [[float(n)] for n in range(20)]
