r"""Model Breadcrumbs (davari2024breadcrumbs).

The largest entries of a task vector are outliers that disturb other tasks, the smallest are noise. Model Breadcrumbs masks
both tails in every layer and adds what lies between them, the breadcrumbs, to the base model; one setting is meant to serve
any number of tasks.

Notation: theta_0 the base model, tau_t = theta_t - theta_0 the task vector of model t, m_t its mask, gamma the fraction of
the largest entries removed, K the density, alpha the scaling coefficient.

Departures: none in the formula. The paper masks by thresholds in each layer; here K and gamma count entries, as in the
authors' code, whose `scope` is an option. Entries as large as the last one kept are all kept, so that the result does not
depend on their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from reference_impls.core.blocks import Streamed
from reference_impls.core.selection import check_density, count_kept, keep_between, largest_magnitudes, one_each
from reference_impls.core.state_dict import StateDict, Vector, linear_combination, task_vector, to_state_dict, to_vector, zip_rows
from reference_impls.task_vectors.ties_merging import merge_task_vectors


def breadcrumbs(
    base: StateDict,
    finetuned: Sequence[StateDict],
    *,
    density: float | Sequence[float] = 0.2,
    gamma: float | Sequence[float] = 0.1,
    scaling_coef: float = 0.4,
    scope: Literal["tensor", "row"] = "tensor",
    merge: Literal["sum", "ties"] = "sum",
    weights: Sequence[float] | None = None,
    zero_sum: Literal["majority", "plus"] = "majority",
) -> StateDict:
    r"""Merge fine-tuned models by the middle of their task vectors.

    $$
    \theta = \theta_0 + \alpha \sum_t m_t \odot \tau_t, \qquad
    m_t^p = \begin{cases} 1 & \gamma n < \operatorname{rank}(|\tau_t^p|) \le (\gamma + K)\,n \\ 0 & \text{otherwise} \end{cases}
    $$

    where the rank counts from the largest of the $n$ entries of a layer.

    Args:
        base: $\theta_0$, the pre-trained model that all the others were fine-tuned from.
        finetuned: $\theta_1 \dots \theta_T$, T >= 1.
        density: $K$, fraction of entries kept, in (0, 1], one for all models or one each. Default 0.2: README of the authors'
            code.
        gamma: $\gamma$, fraction of the largest entries removed, in [0, 1 - K], one for all or one each. Default 0.1: the same
            README.
        scaling_coef: $\alpha$. Default 0.4: the same README.
        scope: where entries are ranked: in each "tensor" (the paper's layers, mergekit) or in each "row", the last dimension
            (authors' code). Default "tensor": the paper.
        merge: "sum" (the paper); "ties" sums only the values whose sign has the larger total movement
            (breadcrumbs_ties of mergekit). Default "sum": the paper.
        weights: one factor per model. Default None: all 1.
        zero_sum: which sign "ties" elects where values add up to zero, "majority" or "plus" (mergekit).
            Default "majority": as in TIES.

    Returns:
        A new state dict, structured as `base`.

    Raises:
        ValueError: no models, models of another structure, a density or gamma out of range, an unknown option,
            another number of weights than of models.

    Example:
        A fifth of ten entries is kept after the largest one is removed: 9 and 8, times 0.4.

        >>> model = {"w": torch.arange(1.0, 11.0)}
        >>> breadcrumbs({"w": torch.zeros(10)}, [model])
        {'w': tensor([0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 3.2000, 3.6000,
                0.0000])}

    References:
        davari2024breadcrumbs, the section on the method (masks of both tails, layer by layer, then their sum).
    """
    sizes = [*zip(one_each("density", density, len(finetuned)), one_each("gamma", gamma, len(finetuned)))]
    for k, g in sizes:
        check_density(k)
        if not 0 <= g <= 1 - k + 1e-9:
            raise ValueError(f"gamma is {g} with density {k}; gamma is at least 0 and gamma + density at most 1")
    for name, value, allowed in (("scope", scope, ("tensor", "row")), ("merge", merge, ("sum", "ties"))):
        if value not in allowed:
            raise ValueError(f"{name} is {value!r}; it is one of {', '.join(allowed)}")
    if not finetuned:
        raise ValueError("received no fine-tuned models; at least one is needed")
    weights = [1.0] * len(finetuned) if weights is None else list(weights)
    if len(weights) != len(finetuned):
        raise ValueError(f"received {len(weights)} weights for {len(finetuned)} models; one weight per model is needed")

    task_vectors = [task_vector(model, base) for model in finetuned]
    trails = [_middle(tau, k, g, scope) for tau, (k, g) in zip(task_vectors, sizes)]
    if merge == "ties":
        total = merge_task_vectors(trails, density=1.0, aggregate="sum", weights=weights, zero_sum=zero_sum)
    else:
        total = linear_combination(trails, weights)
    return to_state_dict(linear_combination([to_vector(base), total], [1.0, scaling_coef]), like=base)


def _middle(tau: Vector, density: float, gamma: float, scope: str) -> Vector:
    """Mask the largest entries and all but the next ones."""
    if scope == "row":
        return zip_rows(lambda tensor: _middle_of_rows(tensor, density, gamma), tau)
    return {key: _middle_of_tensor(tensor, density, gamma) for key, tensor in tau.items()}


def _middle_of_tensor(tensor: Tensor | Streamed, density: float, gamma: float) -> Tensor | Streamed:
    if tensor.numel() == 0:
        return tensor
    largest, smallest = largest_magnitudes([tensor], _ranks(tensor.numel(), density, gamma))  # of those kept
    return keep_between(tensor, smallest, largest)


def _middle_of_rows(tensor: Tensor, density: float, gamma: float) -> Tensor:
    if tensor.numel() == 0:
        return tensor
    first, last = _ranks(tensor.shape[-1] if tensor.ndim else 1, density, gamma)
    sizes = tensor.abs()
    ranked = sizes.sort(dim=-1, descending=True).values
    largest, smallest = (ranked.narrow(-1, k - 1, 1) if tensor.ndim else ranked for k in (first, last))
    return torch.where((sizes <= largest) & (sizes >= smallest), tensor, 0)


def _ranks(n: int, density: float, gamma: float) -> tuple[int, int]:
    """The ranks of the largest and the smallest entry kept, out of n."""
    removed = int(gamma * n + 1e-6)
    return removed + 1, min(removed + count_kept(n, density), n)
