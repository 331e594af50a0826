r"""Selecting entries by magnitude: the trim step of TIES and of every method that sparsifies task vectors."""

from __future__ import annotations

import torch
from torch import Tensor


def check_density(density: float) -> None:
    """Refuse a density (fraction of entries kept) outside (0, 1]."""
    if not 0 < density <= 1:
        raise ValueError(f"density is {density}; it is the fraction of entries kept, in (0, 1]")


def count_kept(size: int, density: float) -> int:
    r"""Return $k = \max(1, \lfloor \text{density} \cdot d \rfloor)$, the number of entries kept out of $d$; 0 if $d = 0$.

    The floor is taken up to rounding error, so that 0.29 of 100 is 29 (in binary, 0.29 * 100 is below 29).

    Example:
        >>> count_kept(100, 0.29), count_kept(3, 0.2), count_kept(0, 0.5)
        (29, 1, 0)
    """
    check_density(density)
    return min(size, max(1, int(density * size + 1e-6)))


def keep_largest(values: Tensor, k: int) -> Tensor:
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
        return values.clone()
    if k <= 0:
        return torch.zeros_like(values)
    magnitudes = values.abs().reshape(-1)
    threshold = magnitudes.kthvalue(magnitudes.numel() - k + 1).values
    return torch.where(values.abs() >= threshold, values, 0)
