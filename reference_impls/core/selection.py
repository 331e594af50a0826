r"""Selecting entries by magnitude: the trim step of TIES and of every method that sparsifies task vectors.

Thresholds are found by counting, not by sorting: the bits of a non-negative floating-point number, read as an integer, have the
order of the number. One count of the upper 16 bits says among which numbers the k-th is, a count of the next 16 bits among those
says which it is, exactly. Counts add up over blocks, tensors and threads in any order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice

import torch
from torch import Tensor
from torch.nn.functional import hardshrink

from .blocks import BLOCK, Streamed, again, blocks, each, entrywise


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

    Example:
        >>> largest_magnitudes([torch.tensor([3.0, -1.0]), torch.tensor([[-2.0, 5.0]])], [1, 3])
        [5.0, 2.0]
    """
    tensors = [again(tensor) for tensor in tensors]  # read once for each count, and then by whoever asked for the threshold
    if sum(tensor.numel() for tensor in tensors) <= BLOCK:  # too few to be worth the counters
        magnitudes = torch.cat([block for tensor in tensors for (block,) in blocks(tensor)]).abs()
        return [magnitudes.kthvalue(len(magnitudes) - k + 1).values.item() for k in ranks]  # a tenth of the time of sorting
    bits = {torch.float32: 32, torch.float64: 64}[tensors[0].dtype]
    integers = {32: torch.int32, 64: torch.int64}[bits]
    found = [0] * len(ranks)  # the upper bits of each answer, as far as they are known
    left = [*ranks]  # the rank among the entries that have these upper bits
    for shift in range(bits - 16, -1, -16):
        prefixes = sorted(set(found))
        count = partial(_count, shift=shift, prefixes=prefixes, integers=integers)
        counted = sum(each(count, tensors))  # (prefixes, 65536)
        at_least = counted.flip(1).cumsum(dim=1)  # of the values 65535, 65534, ...
        for i, prefix in enumerate(found):
            reached = at_least[prefixes.index(prefix)]
            place = int(torch.searchsorted(reached, left[i]))
            left[i] -= int(reached[place - 1]) if place else 0
            found[i] = prefix << 16 | 65535 - place
    return torch.tensor(found).to(integers).view(tensors[0].dtype).tolist()


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


def _count(tensor: Tensor | Streamed, shift: int, prefixes: Sequence[int], integers: torch.dtype) -> Tensor:
    """How many magnitudes have each value in the 16 bits from `shift` on, among those with each of the upper bits given."""
    counts = torch.zeros(len(prefixes), 65536, dtype=torch.int64)
    for several in batched((block for (block,) in blocks(tensor)), 8):  # the counters are as large as a block
        values = [block.abs().view(integers) for block in several]
        for count, prefix in zip(counts, prefixes):
            if shift + 16 < 8 * values[0].itemsize:
                chosen = [_with_prefix(v, shift + 16, prefix) >> shift & 65535 for v in values]
            else:
                chosen = [v >> shift for v in values]
            count += torch.bincount(torch.cat(chosen), minlength=65536).cpu()
    return counts


def _with_prefix(values: Tensor, shift: int, prefix: int) -> Tensor:
    """The values whose bits from `shift` on are these; few of many, which numpy is several times faster to find."""
    if values.device.type != "cpu":
        return values[(values >> shift) == prefix]
    array = values.numpy()
    return torch.from_numpy(array[(array >> shift) == prefix])


def batched(items: Iterable, size: int) -> Iterator[list]:
    """Yield `size` items at a time; the last list may be shorter (itertools has it from Python 3.12 on)."""
    iterator = iter(items)
    while part := [*islice(iterator, size)]:
        yield part
