r"""VaRM, variation ratio merge (wan2024chat).

When several models were fine-tuned from one pivot, a matrix that changed a lot in one of them holds much of what that
model learnt. Each matrix is averaged with weights in proportion to its mean squared change.

Notation: theta_0 the pivot, theta_j the K - 1 target models, m a parameter matrix, Delta theta_{j,m} its change, E_m
the mean over its entries.

Departures: a tensor that no model changed has no ratio; its models are then weighed equally.
"""

from __future__ import annotations

from collections.abc import Sequence

from reference_impls.core.blocks import entrywise, totals
from reference_impls.core.state_dict import StateDict, linear_combination, task_vector, to_state_dict, to_vector


def varm(base: StateDict, finetuned: Sequence[StateDict]) -> StateDict:
    r"""Average models matrix by matrix, weighed by how much the matrix changed.

    $$
    \theta_m = \sum_j W_{j,m}\,\theta_{j,m}, \qquad
    W_{j,m} = \frac{\mathbb{E}_m\,\Delta\theta_{j,m}^2}{\sum_i \mathbb{E}_m\,\Delta\theta_{i,m}^2}, \qquad
    \Delta\theta_{j,m} = \theta_{j,m} - \theta_{0,m}
    $$

    Args:
        base: $\theta_0$, the pivot that the models were fine-tuned from.
        finetuned: the target models $\theta_1 \dots \theta_{K-1}$, at least one.

    Returns:
        A new state dict, structured as `base`.

    Raises:
        ValueError: no models, models of another structure.

    Example:
        Changes (1, 1) and (3, 3): mean squares 1 and 9, weights 0.1 and 0.9, 0.1 * 1 + 0.9 * 3 = 2.8.

        >>> import torch
        >>> varm({"w": torch.zeros(2)}, [{"w": torch.ones(2)}, {"w": torch.full((2,), 3.0)}])
        {'w': tensor([2.8000, 2.8000])}

    References:
        wan2024chat, the merging weights of VaRM.
    """
    if not finetuned:
        raise ValueError("received no fine-tuned models; at least one is needed")
    taus = [task_vector(model, base) for model in finetuned]
    theta_0, merged = to_vector(base), {}
    for key in theta_0:  # the weights sum to one, so that the base may be left out and added
        squares = totals(*(entrywise(lambda x: x.double().square(), tau[key]) for tau in taus))
        w = [square / sum(squares) if sum(squares) else 1 / len(taus) for square in squares]
        merged |= linear_combination([{key: tau[key]} for tau in taus], w)
    return to_state_dict(linear_combination([theta_0, merged], [1.0, 1.0]), like=base)
