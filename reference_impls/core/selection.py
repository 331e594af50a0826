r"""Selecting entries by magnitude: the trim step of TIES and of every method that sparsifies task vectors.

Thresholds of tensors too large to be held are found by counting: the bits of a non-negative floating-point number, read as an integer,
have the order of the number. A sample says in which window of integers the k-th magnitude lies; one pass counts how many lie above the
window and how often each of its integers occurs, and so says which one it is. It is exact: where the sample was wrong, the counts
show it, and wider windows are counted. Counts add up over blocks, tensors and threads in any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import chain
from math import prod
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import hardshrink

from .blocks import BLOCK, Streamed, block_of, blocks, each, entrywise, has_short_rows, ranges, reread

FEW, MANY = 2**16, 2**19  # counters, and entries in a sample, for one tensor and for a model, which is dearer to read again
GROUPS = 8  # of tensors that are counted together
SMALL = 24 * BLOCK  # entries: so few are held and partitioned in less time than a sample and a count take


def check_density(density: float) -> None:
    """Refuse a density (fraction of entries kept) outside (0, 1]."""
    if not 0 < density <= 1:
        raise ValueError(f"density is {density}; it is the fraction of entries kept, in (0, 1]")


def one_each(name: str, value: float | Sequence[float], count: int) -> list[float]:
    """Return one number for each of `count` models, given one for all or one each.

    Example:
        >>> one_each("density", 0.5, 2), one_each("density", [0.2, 0.4], 2)
        ([0.5, 0.5], [0.2, 0.4])
    """
    values = [float(value)] * count if isinstance(value, (int, float)) else [float(x) for x in value]
    if len(values) != count:
        raise ValueError(f"{name} has {len(values)} values for {count} models; one for all or one each is needed")
    return values


def count_kept(size: int, density: float) -> int:
    r"""Return $k = \max(1, \lfloor \text{density} \cdot d \rfloor)$, the number of entries kept out of $d$; 0 if $d = 0$.

    The floor is taken up to rounding error, so that 0.29 of 100 is 29 (in binary, 0.29 * 100 is below 29).

    Example:
        >>> count_kept(100, 0.29), count_kept(3, 0.2), count_kept(0, 0.5)
        (29, 1, 0)
    """
    check_density(density)
    return min(size, max(1, int(density * size + 1e-6)))


def keep_largest(values: Tensor | Streamed, k: int) -> Tensor | Streamed:
    """Return `values` with all but the k largest magnitudes set to zero; entries equal to the k-th are all kept.

    Keeping every entry of the boundary's magnitude makes the result independent of the order of entries.

    Args:
        values: any shape, floating point.
        k: number of entries kept (more where magnitudes tie), 0 to `values.numel()`.

    Example:
        >>> keep_largest(torch.tensor([3.0, -1.0, 2.0, -2.0]), 2)
        tensor([ 3.,  0.,  2., -2.])
    """
    if k >= values.numel():
        return entrywise(torch.clone, values)
    if k <= 0:
        return entrywise(torch.zeros_like, values)
    return keep_at_least(values, largest_magnitudes([values], [k])[0])


def keep_at_least(values: Tensor | Streamed, threshold: float) -> Tensor | Streamed:
    """Return `values` with all magnitudes below the threshold set to zero.

    Example:
        >>> keep_at_least(torch.tensor([3.0, -1.0, 2.0, -2.0]), 2.0)
        tensor([ 3.,  0.,  2., -2.])
    """
    limit = torch.tensor(threshold, dtype=values.dtype)
    below = torch.nextafter(limit, torch.zeros_like(limit)).item()  # hardshrink keeps what is larger, not what is equal
    return entrywise(lambda x: hardshrink(x, below), values)


def keep_between(values: Tensor | Streamed, smallest: float, largest: float) -> Tensor | Streamed:
    """Return `values` with all magnitudes outside [smallest, largest] set to zero.

    Example:
        >>> keep_between(torch.tensor([3.0, -1.0, 2.0, -2.0]), 1.0, 2.0)
        tensor([ 0., -1.,  2., -2.])
    """
    return entrywise(lambda x, kept: kept - hardshrink(x, largest), values, keep_at_least(values, smallest))


def largest_magnitudes(tensors: Sequence[Tensor | Streamed], ranks: Sequence[int]) -> list[float]:
    """Return the k-th largest magnitude of all entries of the tensors together, for every k in `ranks`; exact.

    Args:
        tensors: one tensor, or all of a model; of one floating-point dtype of 32 or 64 bits.
        ranks: each from 1 to the number of entries.

    Raises:
        ValueError: a rank out of range.

    Example:
        >>> largest_magnitudes([torch.tensor([3.0, -1.0]), torch.tensor([[-2.0, 5.0]])], [1, 3])
        [5.0, 2.0]
    """
    size = sum(tensor.numel() for tensor in tensors)
    if not all(1 <= k <= size for k in ranks):
        raise ValueError(f"ranks are {list(ranks)}; of {size} entries, each is from 1 to {size}")
    for tensor in tensors:
        reread(tensor)
    if size <= SMALL:
        magnitudes, filled = torch.empty(size, dtype=tensors[0].dtype), 0
        for (block,) in chain.from_iterable(map(blocks, tensors)):
            magnitudes[filled : filled + len(block)] = block.detach().abs()
            filled += len(block)
        bits = magnitudes.numpy().view(f"i{magnitudes.itemsize}")  # numpy selects from integers in half the time
        places, end = [size - k for k in ranks], size
        for place in sorted({*places}, reverse=True):  # one after the other: several at once take it much longer
            bits[:end].partition(place)
            end = place
        return bits[places].view(magnitudes.numpy().dtype).tolist()
    integers = {torch.float32: torch.int32, torch.float64: torch.int64}[tensors[0].dtype]
    bins = FEW if len(tensors) == 1 else MANY
    everything = Window.over(0, torch.iinfo(integers).max, bins)
    windows = _guess(tensors, [k / size for k in ranks], integers, bins)
    groups = [group for i in range(GROUPS) if (group := tensors[i::GROUPS])]
    while wanted := sorted({window for window in windows if window.first < window.last}):
        tables = dict(zip(wanted, sum(each(partial(_count, windows=wanted, bins=bins, integers=integers), groups))))
        windows = [
            (_narrow(window, tables[window], k, bins) or everything) if window in tables else window
            for window, k in zip(windows, ranks)
        ]
    return torch.tensor([window.first for window in windows], dtype=integers).view(tensors[0].dtype).tolist()


class Window(NamedTuple):
    """The integers from `first` to `last`, of which the lowest `shift` bits don't count."""

    first: int
    last: int
    shift: int

    @classmethod
    def over(cls, first: int, last: int, bins: int) -> Window:
        """Return a window of at most `bins` different integers, and one more."""
        shift = max(0, (last - first).bit_length() - (bins.bit_length() - 1))
        return cls(first >> shift << shift, last, shift)


def _guess(tensors: Sequence[Tensor | Streamed], fractions: Sequence[float], integers: torch.dtype, bins: int) -> list[Window]:
    """Windows that very likely hold the magnitudes with this fraction of all entries above them, by a sample of each block."""
    number = bins // sum(1 for tensor in tensors for _ in ranges(tensor.shape)) + 1
    sample = torch.cat(each(partial(_sample, number=number), tensors)).abs().view(integers).numpy()
    sample.sort()  # numpy sorts integers many times faster
    windows = []
    for fraction in fractions:
        margin = 4 * (fraction * (1 - fraction) / (len(sample) / 6)) ** 0.5  # 4 standard deviations, if a sixth is independent
        below, above = (int((1 - fraction - margin) * len(sample)) - 1, int((1 - fraction + margin) * len(sample)) + 1)
        first = int(sample[below]) if below >= 0 else 0
        last = int(sample[above]) if above < len(sample) else torch.iinfo(integers).max
        windows.append(Window.over(first, max(last, first + 1), bins))
    return windows


def _sample(tensor: Tensor | Streamed, number: int) -> Tensor:
    """About `number` entries of each block, from its first rows."""
    row = prod(tensor.shape[1:]) if has_short_rows(tensor.shape) else 1
    length = -(-max(number, 1024) // max(row, 1)) * max(row, 1)
    parts = [block_of(tensor, start, min(start + length, stop), {}) for start, stop in ranges(tensor.shape)]
    return torch.cat([part[:: max(1, len(part) // number)] for part in parts]).cpu()


def _count(tensors: Sequence[Tensor | Streamed], windows: Sequence[Window], bins: int, integers: torch.dtype) -> Tensor:
    """For each window: how many magnitudes are larger, how many in it have lowest bits, and how many are each of its integers."""
    counts = torch.zeros(len(windows), 3 + bins, dtype=torch.int64)
    largest = max(stop - start for tensor in tensors for start, stop in ranges(tensor.shape))
    waiting = torch.empty(len(windows), bins + largest, dtype=integers)  # until they are worth going through the counters
    above, filled = [0] * len(windows), [0] * len(windows)

    def enter(i: int) -> None:
        (first, _, shift), values = windows[i], waiting[i, : filled[i]]
        values -= first
        counts[i, 1] += (values & (1 << shift) - 1).count_nonzero()
        counts[i, 2:] += torch.bincount(values >> shift, minlength=bins + 1)
        filled[i] = 0

    for (block,) in chain.from_iterable(map(blocks, tensors)):
        bits = block.detach().abs().view(integers)
        for i, (first, last, _) in enumerate(windows):
            larger, inside = _split(bits, first, last)
            above[i] += larger
            waiting[i, filled[i] : filled[i] + len(inside)] = inside
            filled[i] += len(inside)
            if filled[i] >= bins:
                enter(i)
    for i in range(len(windows)):
        enter(i)
        counts[i, 0] = above[i]
    return counts if max(counts.amax(dim=1)) > torch.iinfo(torch.int32).max else counts.int()


def _split(bits: Tensor, first: int, last: int) -> tuple[int, Tensor]:
    """How many integers are larger than the last one, and which are from the first to the last."""
    if bits.device.type != "cpu":
        return int((bits > last).sum()), bits[(bits >= first) & (bits <= last)]
    array = bits.numpy()  # numpy picks few of many several times faster
    larger = array > last
    return int(np.count_nonzero(larger)), torch.from_numpy(array[(array >= first) ^ larger])


def _narrow(window: Window, counts: Tensor, rank: int, bins: int) -> Window | None:
    """The part of a window that holds the magnitude of this rank; None if the window doesn't."""
    larger, uneven, table = int(counts[0]), int(counts[1]), counts[2:]
    at_least = larger + table.flip(0).cumsum(0)  # of the largest integer, the next, ...
    if not larger < rank <= at_least[-1]:
        return None
    first = window.first + (bins - int(torch.searchsorted(at_least, rank)) << window.shift)
    return Window.over(first, min(first + (1 << window.shift) - 1, window.last) if uneven else first, bins)


def order_by_magnitude(rows: Tensor) -> Tensor:
    """Return the places of the entries of each row, from the smallest magnitude to the largest; equal ones in their order.

    Args:
        rows: (m, n), floating point.

    Example:
        >>> order_by_magnitude(torch.tensor([[-3.0, 1.0, -1.0, 2.0]]))
        tensor([[1, 2, 3, 0]])
    """
    if rows.dtype != torch.float32 or rows.device.type != "cpu" or rows.numel() < 4096:  # too few to be worth it
        return rows.abs().argsort(dim=1, stable=True)
    keys = rows.abs().view(torch.int32).long() << 32 | torch.arange(rows.shape[1])  # numpy sorts integers several times faster
    keys.numpy().sort(axis=1)
    return keys & 0xFFFFFFFF
