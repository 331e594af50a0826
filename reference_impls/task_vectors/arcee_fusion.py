r"""Arcee Fusion.

Of all the differences between two models only the outstanding ones are taken over. An entry counts by its change times a
divergence of its row: the rows of both models are read as logits, and their softmax distributions are compared. What exceeds
the median importance of its tensor by one and a half interquartile ranges, the usual rule for outliers, is taken from the
second model; the rest of the first one stays.

Notation: A a tensor of the first model, B of the second, i a row (along the last dimension), j an entry of it, s the
importance, q_1, q_2 and q_3 the quartiles of the importance within the tensor.

Departures: none from the published rule. The divergence is computed in double precision, where it is never negative; the
published code adds 1e-8 to the probabilities in single precision, where it often is. All entries enter the quartiles, also
of large tensors.
"""

from __future__ import annotations

import torch
from torch import Tensor

from reference_impls.core.blocks import Streamed, again, entrywise, rowwise
from reference_impls.core.selection import largest_magnitudes
from reference_impls.core.state_dict import StateDict, check_same_structure, to_state_dict, to_vector


def arcee_fusion(model_a: StateDict, model_b: StateDict, *, whiskers: float = 1.5) -> StateDict:
    r"""Take from the second model the entries whose importance is an outlier.

    $$
    s_{ij} = |B_{ij} - A_{ij}| \; \mathrm{KL}\big(\operatorname{softmax}(B_i) \,\Vert\, \operatorname{softmax}(A_i)\big), \qquad
    \theta_{ij} = \begin{cases} B_{ij} & s_{ij} \ge q_2 + 1.5\,(q_3 - q_1) \\ A_{ij} & \text{otherwise} \end{cases}
    $$

    Args:
        model_a: $A$, the model that is kept (base model of mergekit).
        model_b: $B$, the model whose outstanding entries are taken.
        whiskers: how many interquartile ranges above the median the threshold lies, >= 0. Default 1.5: the published rule.

    Returns:
        A new state dict, structured as `model_a`.

    Raises:
        ValueError: models of another structure, negative whiskers.

    Example:
        One row, whose divergence is the same for all its entries: the changes 0, 1, 1, 2 and 9 have the quartiles 1, 1 and 2,
        and only 9 is above 1 + 1.5 * (2 - 1) = 2.5.

        >>> arcee_fusion({"w": torch.zeros(5)}, {"w": torch.tensor([0.0, 1.0, 1.0, 2.0, 9.0])})
        {'w': tensor([0., 0., 0., 0., 9.])}

    References:
        Arcee AI's announcement of Arcee Fusion; mergekit, the method arcee_fusion.
    """
    if whiskers < 0:
        raise ValueError(f"whiskers is {whiskers}; it is at least 0")
    check_same_structure(model_a, model_b)
    theta_a, theta_b = to_vector(model_a), to_vector(model_b)
    fused = {key: _fuse(theta_a[key], theta_b[key], whiskers) for key in theta_a}
    return to_state_dict(fused, like=model_a)


def _fuse(a: Tensor | Streamed, b: Tensor | Streamed, whiskers: float) -> Tensor | Streamed:
    """Take from b the entries whose importance stands out above the quartiles, the others from a."""
    size = a.numel()
    if size == 0:
        return a
    importance = again(rowwise(_importance, a, b))
    ranks = [size - int(q * (size - 1)) for q in (0.25, 0.5, 0.75)]  # from the largest; between two entries, of the lower one
    lower, median, upper = largest_magnitudes([importance], ranks)
    threshold = median + whiskers * (upper - lower)
    return entrywise(lambda a, b, s: torch.where(s >= threshold, b, a), a, b, importance)


def _importance(a: Tensor, b: Tensor) -> Tensor:
    """How far each entry moved, times how much its row's distribution changed."""
    return (b - a).double().abs() * _divergence(b.double(), a.double())


def _divergence(b: Tensor, a: Tensor) -> Tensor:
    """KL divergence of the rows' softmax distributions, (..., 1)."""
    log_p, log_q = b.log_softmax(dim=-1), a.log_softmax(dim=-1)
    divergence = (log_p.exp() * (log_p - log_q)).sum(dim=-1, keepdim=a.ndim > 0)
    return divergence.clamp(min=0)  # against rounding
