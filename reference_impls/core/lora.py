r"""Low-rank adapters: the update of a weight as a product of two thin matrices.

An adapter (LoRA, arXiv:2106.09685) maps the name of a weight $W_0 \in \mathbb{R}^{m \times n}$ to the pair
$(A, B)$ with $A \in \mathbb{R}^{r \times n}$ and $B \in \mathbb{R}^{m \times r}$; the adapted weight is
$W_0 + s\,B A$ with the scaling $s$ (alpha / r in the paper). Sums of such updates have low rank too, so that their
singular value decomposition never needs the full matrix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .state_dict import tied_to

Adapter = Mapping[str, tuple[Tensor, Tensor]]  # weight name -> (A, B)


ROWS = 32  # of an update that are computed together


def low_rank_update(A: Tensor, B: Tensor, scaling: float = 1.0) -> Tensor:
    r"""The update $s\,B A$ of one weight.

    It is computed `ROWS` rows at a time, so that whoever needs a part of a large update gets the bits of the whole.

    Args:
        A: down projection (r, n).
        B: up projection (m, r).
        scaling: s.

    Returns:
        Matrix (m, n).

    Raises:
        ValueError: if the inner dimensions differ.

    Example:
        >>> low_rank_update(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0], [0.0]]), 0.5)
        tensor([[1.5000, 3.0000],
                [0.0000, 0.0000]])

    References: Hu et al., LoRA, arXiv:2106.09685, the equation of the adapted layer.
    """
    if A.ndim != 2 or B.ndim != 2 or A.shape[0] != B.shape[1]:
        raise ValueError(f"A must be (r, n) and B (m, r), got {tuple(A.shape)} and {tuple(B.shape)}")
    return torch.cat([scaling * (rows @ A) for rows in B.split(ROWS)])


def merge_adapter(base: Mapping[str, Tensor], adapter: Adapter, scaling: float = 1.0) -> dict[str, Tensor]:
    r"""The state dict $W_0 + s\,B A$: an adapter written into its base model.

    Weights are added in at least float32 and rounded once; the result is new and keeps the keys and ties of `base`.

    Args:
        base: theta_0; every name in `adapter` must be one of its matrices.
        adapter: name -> (A, B).
        scaling: s.

    Raises:
        ValueError: for an unknown name, or where the shape of B A is not the shape of the weight.

    Example:
        >>> adapter = {"w": (torch.ones(1, 2), torch.tensor([[1.0], [2.0]]))}
        >>> merge_adapter({"w": torch.zeros(2, 2)}, adapter, scaling=2.0)["w"]
        tensor([[2., 2.],
                [4., 4.]])
    """
    ties = tied_to(base)
    out: dict[str, Tensor] = {}
    for name, weight in base.items():
        out[name] = out[ties[name]] if name in ties else weight.detach().clone()
    for name, (A, B) in adapter.items():
        if name not in base:
            raise ValueError(f"the adapter names {name!r}, which the base model does not have")
        if name in ties:
            raise ValueError(f"the adapter names {name!r}, which is tied to {ties[name]!r}: name that weight instead")
        dtype = torch.promote_types(base[name].dtype, torch.float32)
        update = low_rank_update(A.detach().to(dtype), B.detach().to(dtype), scaling)
        if update.shape != base[name].shape:
            raise ValueError(f"{name!r} has shape {tuple(base[name].shape)}, its update {tuple(update.shape)}")
        out[name].copy_(base[name].detach().to(dtype) + update)
    return out


def truncated_svd(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    r"""The `rank` largest singular values with their vectors: the best approximation of that rank (Eckart and Young).

    $$ M \approx U \operatorname{diag}(S) V^\top $$

    Args:
        matrix: (m, n).
        rank: 1 to min(m, n).

    Returns:
        U (m, rank), S (rank,) in falling order, V^T (rank, n).

    Raises:
        ValueError: for a rank out of range.

    Example:
        >>> U, S, Vh = truncated_svd(torch.diag(torch.tensor([1.0, 3.0])), 1)
        >>> S, (U * S @ Vh).abs()
        (tensor([3.]), tensor([[0., 0.],
                [0., 3.]]))
    """
    if matrix.ndim != 2 or not 1 <= rank <= min(matrix.shape):
        raise ValueError(f"rank must be 1 to min(m, n) of a matrix, got rank {rank} and shape {tuple(matrix.shape)}")
    U, S, Vh = torch.linalg.svd(matrix, full_matrices=False)
    return U[:, :rank], S[:rank], Vh[:rank]


def randomized_svd(
    matrix: Tensor, rank: int, *, oversampling: int = 16, iterations: int = 4, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Nearly the result of `truncated_svd`, in a fraction of the time where the rank is small beside the matrix.

    $$
    Q = \operatorname{orth}\big((M M^\top)^q M\, \Omega\big), \qquad Q^\top M = U' S V^\top, \qquad
    M \approx Q U' \operatorname{diag}(S)\, V^\top
    $$

    The columns of $M\, \Omega$, with $\Omega \in \mathbb{R}^{n \times (r + p)}$ random, span nearly the space of the largest
    singular vectors, and each further round with $M M^\top$ brings them closer. A rank of $r + p$ or less is found exactly.

    Args:
        matrix: (m, n).
        rank: 1 to min(m, n).
        oversampling: p. Default 16, our choice.
        iterations: q. Default 4, our choice, for spectra that fall slowly.
        generator: source of $\Omega$. Default None: a new one with seed 0.

    Returns:
        U (m, rank), S (rank,) in falling order, V^T (rank, n).

    Raises:
        ValueError: for a rank out of range.

    Example:
        >>> M = torch.outer(torch.arange(4.0), torch.ones(5))
        >>> U, S, Vh = randomized_svd(M, 1)
        >>> torch.allclose(U * S @ Vh, M, atol=1e-5)
        True

    References: Halko, Martinsson and Tropp, Finding structure with randomness, arXiv:0909.4061: subspace iteration.
    """
    if matrix.ndim != 2 or not 1 <= rank <= min(matrix.shape):
        raise ValueError(f"rank must be 1 to min(m, n) of a matrix, got rank {rank} and shape {tuple(matrix.shape)}")
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    columns = min(rank + oversampling, *matrix.shape)
    sketch = torch.randn(matrix.shape[1], columns, generator=generator, dtype=matrix.dtype).to(matrix.device)
    Q = torch.linalg.qr(matrix @ sketch)[0]
    for _ in range(iterations):
        Q = torch.linalg.qr(matrix.T @ Q)[0]
        Q = torch.linalg.qr(matrix @ Q)[0]
    U, S, Vh = torch.linalg.svd(Q.T @ matrix, full_matrices=False)
    return (Q @ U)[:, :rank], S[:rank], Vh[:rank]


def svd_of_low_rank_sum(
    factors: Sequence[tuple[Tensor, Tensor]], weights: Sequence[float] | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    r"""The exact singular value decomposition of a weighted sum of low-rank products, without the full matrix.

    $$ \sum_t w_t B_t A_t = \underbrace{[w_1 B_1 \dots w_T B_T]}_{Q_B R_B}
       \underbrace{[A_1^\top \dots A_T^\top]^\top}_{(Q_A R_A)^\top}
       = Q_B \, \big(R_B R_A^\top\big) \, Q_A^\top, \qquad R_B R_A^\top = U' S V'^\top $$

    The core $R_B R_A^\top$ has at most $\sum_t r_t$ rows and columns, so the cost falls from $O(mn\min(m, n))$ to
    $O((m + n) R^2 + R^3)$ with $R = \sum_t r_t$.

    Args:
        factors: pairs (A_t (r_t, n), B_t (m, r_t)); ranks may differ.
        weights: w_t. Default None: all 1.

    Returns:
        U (m, k), S (k,) in falling order, V^T (k, n) with k = min(m, n, R).

    Raises:
        ValueError: if there are no factors, if their shapes disagree, or if the number of weights differs.

    Example:
        >>> e1, e2 = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0]])
        >>> U, S, Vh = svd_of_low_rank_sum([(e1, e1.T), (2 * e2, e2.T)])
        >>> S
        tensor([2., 1.])
    """
    if not factors:
        raise ValueError("received no factors; at least one pair (A, B) is needed")
    weights = [1.0] * len(factors) if weights is None else weights
    if len(weights) != len(factors):
        raise ValueError(f"received {len(weights)} weights for {len(factors)} pairs of factors")
    shapes = [(tuple(A.shape), tuple(B.shape)) for A, B in factors]
    if any(a[0] != b[1] or a[1] != shapes[0][0][1] or b[0] != shapes[0][1][0] for a, b in shapes):
        raise ValueError(f"factors must be (r, n) and (m, r) with common n and m, got {shapes}")
    A = torch.cat([a for a, _ in factors])  # (R, n)
    B = torch.cat([w * b for w, (_, b) in zip(weights, factors, strict=True)], dim=1)  # (m, R)
    Q_B, R_B = torch.linalg.qr(B)  # (m, min(m, R)), (min(m, R), R)
    Q_A, R_A = torch.linalg.qr(A.T)
    U, S, Vh = torch.linalg.svd(R_B @ R_A.T, full_matrices=False)
    return Q_B @ U, S, Vh @ Q_A.T
