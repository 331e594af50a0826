r"""Tensors in blocks: the same function on a model in memory and on one that is too large for it.

Most merging rules are entrywise: entry j of the result depends on the entries j of the models and on a few numbers that are known
for the whole tensor (a threshold, a sum, an angle). A method that says which is which, with the functions of this module, runs on
ordinary tensors at once and on `Streamed` tensors block by block, with memory for a few blocks only:

- `entrywise` computes entries from entries of the same place, `rowwise` rows from rows, `whole` whatever needs the whole tensor;
- `inner_products`, `totals` and `selection.largest_magnitudes` return numbers for a tensor or a group of tensors.

A `Streamed` tensor is a recipe for its blocks: nothing is computed until a number or the blocks of a result are asked for.
Numbers are added up over the same blocks in the same order wherever the tensor lies, so that both ways give the same bits,
whatever the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from math import prod
from typing import Protocol, TypeVar
from weakref import WeakValueDictionary

import torch
from torch import Tensor

BLOCK = 131_072  # entries: small enough for the processor's cache, large enough for the overhead of a call

T = TypeVar("T")


class Pool(Protocol):
    """What works on several tensors at once, such as an `Executor`."""

    def map(self, function: Callable[..., T], *arguments: Sequence) -> Iterable[T]: ...


_pool: ContextVar[Pool | None] = ContextVar("pool", default=None)


class Streamed:
    """A tensor that is computed in blocks, as far as methods look at one.

    Attributes:
        shape: of the tensor.
        dtype: of its blocks.
        device: of its blocks.
        keep: whether blocks that are needed `again` may be kept in memory.
    """

    def __init__(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device, keep: bool) -> None:
        self.shape, self.dtype, self.device, self.keep = torch.Size(shape), dtype, device, keep
        self._uses = 0  # in how many other tensors
        self._converted: WeakValueDictionary[torch.dtype, Streamed] = WeakValueDictionary()
        self._kept: Tensor | None = None  # the whole tensor laid out flat, where blocks are kept
        self._there: set[tuple[int, int]] = set()  # the blocks that are in it

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def numel(self) -> int:
        return prod(self.shape)

    def is_floating_point(self) -> bool:
        return self.dtype.is_floating_point

    def detach(self) -> Streamed:
        return self

    def data_ptr(self) -> int:  # with `stride`, what tells tied weights apart from equal ones
        return id(self)

    def stride(self) -> tuple[int, ...]:
        return ()

    def to(self, dtype: torch.dtype, copy: bool = False) -> Streamed:
        if dtype == self.dtype:
            return self
        if (converted := self._converted.get(dtype)) is None:  # as several ask for it, it is computed once a block
            self._converted[dtype] = converted = Computed(lambda x: x.to(dtype), (self,))
        return converted

    def block(self, start: int, stop: int, known: dict[int, Tensor]) -> Tensor:
        """Return the entries from `start` up to `stop` of the tensor laid out flat; `known` holds the blocks of this range."""
        if self._kept is not None:
            if (start, stop) not in self._there:
                self._kept[start:stop] = self._compute(start, stop, known)
                self._there.add((start, stop))
            return self._kept[start:stop]
        if self._uses < 2:  # not held any longer, its memory serves for the next step while it is in the processor's cache
            return self._compute(start, stop, known)
        if id(self) not in known:
            known[id(self)] = self._compute(start, stop, known)
        return known[id(self)]

    def _compute(self, start: int, stop: int, known: dict[int, Tensor]) -> Tensor:
        raise NotImplementedError

    def materialize(self) -> Tensor:
        """Return the whole tensor."""
        return torch.cat([self.block(start, stop, {}) for start, stop in ranges(self.shape)]).reshape(self.shape)


class Stored(Streamed):
    """A tensor whose blocks are read: `read(start, stop)` returns flat entries."""

    def __init__(self, read: Callable[[int, int], Tensor], shape: Sequence[int], dtype: torch.dtype, device: torch.device,
                 keep: bool = False) -> None:  # fmt: skip
        super().__init__(shape, dtype, device, keep)
        self.read = read

    def _compute(self, start: int, stop: int, known: dict[int, Tensor]) -> Tensor:
        return self.read(start, stop)


class Computed(Streamed):
    """A function of other tensors of the same shape, entry by entry."""

    def __init__(self, function: Callable[..., Tensor], parents: Sequence[Tensor | Streamed]) -> None:
        first = next(parent for parent in parents if isinstance(parent, Streamed))
        nothing = [torch.empty((0, *first.shape[1:]), dtype=parent.dtype) for parent in parents]
        super().__init__(first.shape, function(*nothing).dtype, first.device, first.keep)
        self.function, self.parents = function, parents
        for parent in parents:
            if isinstance(parent, Streamed):
                parent._uses += 1

    def _compute(self, start: int, stop: int, known: dict[int, Tensor]) -> Tensor:
        return self.function(*[block_of(parent, start, stop, known) for parent in self.parents])


class ByRows(Computed):
    """A function of other tensors of the same shape, row by row; a block is a number of whole rows."""

    def _compute(self, start: int, stop: int, known: dict[int, Tensor]) -> Tensor:
        rows = (-1, *self.shape[1:])
        return self.function(*(block_of(parent, start, stop, known).reshape(rows) for parent in self.parents)).reshape(-1)


class Whole(Streamed):
    """A function of other tensors that needs them whole; computed when it is first asked for, and kept."""

    def __init__(self, function: Callable[..., Tensor], parents: Sequence[Tensor | Streamed]) -> None:
        first = next(parent for parent in parents if isinstance(parent, Streamed))
        self.shape, self.device, self.keep, self._kept = first.shape, first.device, False, None
        self.function, self.parents, self._uses = function, parents, 0

    def to(self, dtype: torch.dtype, copy: bool = False) -> Streamed:
        return self if dtype == self.dtype else Computed(lambda x: x.to(dtype), (self,))

    @cached_property
    def values(self) -> Tensor:
        return self.function(*(p.materialize() if isinstance(p, Streamed) else p for p in self.parents))

    @property
    def dtype(self) -> torch.dtype:
        return self.values.dtype

    def _compute(self, start: int, stop: int, known: dict[int, Tensor]) -> Tensor:
        return self.values.reshape(-1)[start:stop]


def entrywise(function: Callable[..., Tensor], *tensors: Tensor | Streamed) -> Tensor | Streamed:
    """Apply a function whose every entry depends on the entries of the same place only.

    Example:
        >>> entrywise(torch.add, torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]))
        tensor([4., 6.])
    """
    return Computed(function, tensors) if any(isinstance(t, Streamed) for t in tensors) else function(*tensors)


def rowwise(function: Callable[..., Tensor], *tensors: Tensor | Streamed) -> Tensor | Streamed:
    """Apply a function whose every row (slice along the first dimension) depends on the same row only; a vector is one row.

    Example:
        >>> rowwise(lambda x: x - x.mean(dim=1, keepdim=True), torch.tensor([[1.0, 3.0], [5.0, 5.0]]))
        tensor([[-1.,  1.],
                [ 0.,  0.]])
    """
    if not any(isinstance(t, Streamed) for t in tensors):
        return function(*tensors)
    return ByRows(function, tensors) if has_short_rows(tensors[0].shape) else Whole(function, tensors)


def whole(function: Callable[..., Tensor], *tensors: Tensor | Streamed) -> Tensor | Streamed:
    """Apply a function that needs whole tensors."""
    return Whole(function, tensors) if any(isinstance(t, Streamed) for t in tensors) else function(*tensors)


def again(tensor: Tensor | Streamed) -> Tensor | Streamed:
    """Say that all entries of a tensor will be needed more than once, so that it is computed once if memory allows."""
    if isinstance(tensor, Streamed) and tensor.keep and tensor._kept is None:
        tensor._kept = torch.empty(tensor.numel(), dtype=tensor.dtype, device=tensor.device)
    return tensor


def reread(tensor: Tensor | Streamed) -> None:
    """Say that all entries of a tensor will be computed more than once, so that what they are read from is kept if memory allows."""
    if isinstance(tensor, Stored):
        again(tensor)
    elif isinstance(tensor, Computed) and tensor._kept is None:
        for parent in tensor.parents:
            reread(parent)


def has_short_rows(shape: Sequence[int]) -> bool:
    """Whether blocks of whole rows have a bearable size."""
    return len(shape) > 1 and prod(shape[1:]) <= 8 * BLOCK


def ranges(shape: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Cut a tensor laid out flat: about `BLOCK` entries at a time, whole rows unless they are very long."""
    size, row = prod(shape), prod(shape[1:]) if has_short_rows(shape) else 1
    step = max(1, BLOCK // max(1, row)) * max(1, row)
    for start in range(0, max(size, 1), step):
        yield start, min(start + step, size)


def blocks(*tensors: Tensor | Streamed) -> Iterator[tuple[Tensor, ...]]:
    """Yield the entries of tensors of one shape, laid out flat, block by block."""
    for start, stop in ranges(tensors[0].shape):
        known: dict[int, Tensor] = {}
        yield tuple(block_of(tensor, start, stop, known) for tensor in tensors)


def block_of(tensor: Tensor | Streamed, start: int, stop: int, known: dict[int, Tensor]) -> Tensor:
    if isinstance(tensor, Streamed):
        return tensor.block(start, stop, known)
    return tensor.reshape(-1)[start:stop]


def sum_of(block: Tensor) -> float:
    """Return the sum of the entries: runs of 64 in their own precision, at least single, the rest in double.

    The order of summation doesn't depend on the number of threads, as that of torch does for 32,768 entries and more.
    """
    block, rest = block if block.dtype == torch.float64 else block.float(), block.numel() % 64
    if rest:
        return sum_of(block[:-rest]) + block[-rest:].sum(dtype=torch.float64).item()
    return block.reshape(-1, 64).sum(dim=1).sum(dtype=torch.float64).item()


def totals(*tensors: Tensor | Streamed) -> list[float]:
    """Return the sum of all entries of each of several tensors of one shape, added up in double precision.

    Example:
        >>> totals(torch.tensor([1.0, 2.0]), torch.tensor([5.0, 5.0]))
        [3.0, 10.0]
    """
    sums = [0.0] * len(tensors)
    for several in blocks(*tensors):
        sums = [total + sum_of(block) for total, block in zip(sums, several)]
    return sums


def inner_products(tensors: Sequence[Tensor | Streamed]) -> Tensor:
    r"""Return the Gram matrix $\langle x_i, x_j\rangle$ of tensors of one shape, (n, n), in float64, on the CPU.

    Example:
        >>> inner_products([torch.tensor([1.0, 0.0]), torch.tensor([1.0, 2.0])])
        tensor([[1., 1.],
                [1., 5.]], dtype=torch.float64)
    """
    n = len(tensors)
    sums = {(i, j): 0.0 for i in range(n) for j in range(i, n)}
    for x in blocks(*tensors):
        x = [block.double() for block in x]
        for i, j in sums:
            sums[i, j] += sum_of(x[i] * x[j])
    return torch.tensor([[sums[min(i, j), max(i, j)] for j in range(n)] for i in range(n)], dtype=torch.float64)


@contextmanager
def working_in(pool: Pool) -> Iterator[None]:
    """Let `each` work on several tensors at once, in this context."""
    token = _pool.set(pool)
    try:
        yield
    finally:
        _pool.reset(token)


def each(function: Callable[..., T], *arguments: Sequence) -> list[T]:
    """Return `function` of every tensor of a model, in order: for numbers that belong to the whole model.

    Example:
        >>> each(totals, [torch.ones(2), torch.ones(3)])
        [[2.0], [3.0]]
    """
    pool = _pool.get()
    return [*map(function, *arguments)] if pool is None else [*pool.map(function, *arguments)]
