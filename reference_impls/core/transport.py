r"""Optimal transport between the units of two layers: a soft correspondence, for layers of equal or different width.

A transport plan $T$ of shape (n, m) says how much of unit j's mass goes to unit i; with uniform marginals its rows sum
to $1/n$ and its columns to $1/m$. For equal widths the exact plan is a permutation divided by n.
"""

from __future__ import annotations

import torch
from torch import Tensor


def transport_plan(cost: Tensor, *, reg: float = 0.0) -> Tensor:
    r"""Return the plan that moves uniform mass at the least cost, (n, m), in float64.

    $$
    T = \arg\min_{T \ge 0} \langle T, C \rangle - \tau H(T)
    \quad\text{with } T \mathbf 1 = \tfrac1n \mathbf 1,\; T^\top \mathbf 1 = \tfrac1m \mathbf 1
    $$

    Args:
        cost: $C$, (n, m).
        reg: $\tau$, weight of the entropy $H$, >= 0; 0 solves the problem exactly, more makes the plan softer
            (Sinkhorn's algorithm).

    Raises:
        ImportError: POT, which solves it, is missing.

    Example:
        >>> transport_plan(torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
        tensor([[0.0000, 0.5000],
                [0.5000, 0.0000]], dtype=torch.float64)
    """
    if reg < 0:
        raise ValueError(f"reg is {reg}; it is the weight of the entropy, at least 0")
    try:
        import ot
    except ImportError as error:
        raise ImportError('optimal transport needs POT: pip install "model-fusion-atlas[alignment]"') from error
    n, m = cost.shape
    matrix = cost.detach().double().cpu().contiguous()
    rows, columns = torch.full((n,), 1 / n, dtype=torch.float64), torch.full((m,), 1 / m, dtype=torch.float64)
    if reg == 0:
        plan = ot.emd(rows, columns, matrix, numItermax=100 * n * m + 10_000)  # POT's 100,000 stop short from about 2,000 units on
    else:
        plan = ot.sinkhorn(rows, columns, matrix, reg, method="sinkhorn_log", numItermax=2000, warn=False)
    return plan.to(cost.device)


def log_sinkhorn(logits: Tensor, max_iter: int = 20) -> Tensor:
    """Return the logarithm of exp(logits) with rows and columns scaled in turn until they sum to one, (..., n, n).

    Example:
        >>> log_sinkhorn(torch.tensor([[0.0, 2.0], [2.0, 0.0]]).log()).exp()  # rows and columns of zeros and twos
        tensor([[0., 1.],
                [1., 0.]])
    """
    for _ in range(max_iter):
        logits = logits - logits.logsumexp(dim=-1, keepdim=True)
        logits = logits - logits.logsumexp(dim=-2, keepdim=True)
    return logits
