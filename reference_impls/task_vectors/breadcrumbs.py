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

from reference_impls.core.selection import check_density, count_kept
from reference_impls.core.state_dict import StateDict, linear_combination, task_vector, to_state_dict, to_vector
from reference_impls.task_vectors.ties_merging import ties_merging


def breadcrumbs(
    base: StateDict,
    finetuned: Sequence[StateDict],
    *,
    density: float = 0.2,
    gamma: float = 0.1,
    scaling_coef: float = 0.4,
    scope: Literal["tensor", "row"] = "tensor",
    merge: Literal["sum", "ties"] = "sum",
    weights: Sequence[float] | None = None,
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
        density: $K$, fraction of entries kept, in (0, 1]. Default 0.2: README of the authors' code.
        gamma: $\gamma$, fraction of the largest entries removed, in [0, 1 - K]. Default 0.1: the same README.
        scaling_coef: $\alpha$. Default 0.4: the same README.
        scope: where entries are ranked: in each "tensor" (the paper's layers, mergekit) or in each "row", the last dimension
            (authors' code). Default "tensor": the paper.
        merge: "sum" (the paper); "ties" sums only the values whose sign has the larger total movement
            (breadcrumbs_ties of mergekit). Default "sum": the paper.
        weights: one factor per model. Default None: all 1.

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
    check_density(density)
    if not 0 <= gamma <= 1 - density + 1e-9:
        raise ValueError(f"gamma is {gamma} with density {density}; gamma is at least 0 and gamma + density at most 1")
    for name, value, allowed in (("scope", scope, ("tensor", "row")), ("merge", merge, ("sum", "ties"))):
        if value not in allowed:
            raise ValueError(f"{name} is {value!r}; it is one of {', '.join(allowed)}")
    if not finetuned:
        raise ValueError("received no fine-tuned models; at least one is needed")
    weights = [1.0] * len(finetuned) if weights is None else list(weights)
    if len(weights) != len(finetuned):
        raise ValueError(f"received {len(weights)} weights for {len(finetuned)} models; one weight per model is needed")

    task_vectors = [task_vector(model, base) for model in finetuned]
    trails = [{key: _middle(t, density, gamma, scope) for key, t in tau.items()} for tau in task_vectors]
    total = linear_combination(trails, weights)
    if merge == "ties":
        zero = linear_combination(trails[:1], [0.0])
        total = dict(ties_merging(zero, trails, density=1.0, aggregate="sum", weights=weights))
    return to_state_dict(linear_combination([to_vector(base), total], [1.0, scaling_coef]), like=base)


def _middle(tensor: Tensor, density: float, gamma: float, scope: str) -> Tensor:
    """Mask the largest entries and all but the next ones."""
    if tensor.numel() == 0:
        return tensor
    rows = tensor.reshape(-1, tensor.shape[-1]) if scope == "row" and tensor.ndim else tensor.reshape(1, -1)
    n = rows.shape[1]
    removed, kept = int(gamma * n + 1e-6), count_kept(n, density)
    sizes = rows.abs()
    ranked = sizes.sort(dim=1, descending=True).values
    largest, smallest = ranked[:, removed, None], ranked[:, min(removed + kept, n) - 1, None]  # of those kept
    return torch.where((sizes <= largest) & (sizes >= smallest), rows, 0).reshape(tensor.shape)
