r"""Consensus merging (wang2024localizing).

The masks that localize each task (TALL-masks) show that some parameters of the multi-task vector serve no task and
some serve a single one: catastrophic and selfish weights, whose removal spoils little and whose presence disturbs the
others. Consensus merging keeps only the parameters that at least k tasks select, and then adds the multi-task vector
as usual.

Notation: theta_0 the base model, tau_MTL the multi-task vector, m_t the TALL-mask of task t, k the number of tasks
that must agree, alpha the scaling coefficient.

Departures: none. The paper picks the thresholds of the masks and alpha on validation data; here the caller passes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Literal

import torch

from reference_impls.core.state_dict import StateDict, Vector, linear_combination, to_state_dict, to_vector, zip_entries
from reference_impls.task_vectors.tall_masks import tall_masks


def consensus_merging(
    base: StateDict,
    finetuned: Sequence[StateDict],
    *,
    min_tasks: int = 2,
    threshold: float | Sequence[float] = 0.4,
    scaling_coef: float = 1.0,
    merge: Literal["sum", "ties"] = "sum",
) -> StateDict:
    r"""Add the multi-task vector without the parameters that fewer than k tasks use.

    $$
    m_{consensus} = \Big[ \sum_t m_t \ge k \Big], \qquad
    \theta = \theta_0 + \alpha\; m_{consensus} \odot \tau_{MTL}
    $$

    Args:
        base: $\theta_0$, the pre-trained model that all the others were fine-tuned from.
        finetuned: $\theta_1 \dots \theta_n$, n >= 1.
        min_tasks: $k$, >= 0, number of tasks that must select a parameter: 0 keeps everything, 1 removes catastrophic weights,
            2 selfish ones as well, more than n leaves the base. Default 2: both kinds are removed, as in the paper.
        threshold: $\lambda_t$ of the masks, >= 0, one number for all tasks or one per task. Default 0.4, as in `tall_masks`.
        scaling_coef: $\alpha$, multiplies the masked multi-task vector. Default 1.0: the sum itself.
        merge: how the multi-task vector is made, "sum" or "ties", as in `tall_masks`. Default "sum": task arithmetic.

    Returns:
        A new state dict, structured as `base`.

    Raises:
        ValueError: no models, models of another structure, a negative threshold or min_tasks, an unknown option.

    Example:
        The sum of the task vectors is (4, 4). Both masks select the second entry, only the second model's selects the first
        (1 < 0.4 * 3), so the first entry is selfish and is left out.

        >>> models = [{"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, 2.0])}]
        >>> consensus_merging({"w": torch.zeros(2)}, models)
        {'w': tensor([0., 4.])}

    References:
        wang2024localizing (consensus merging); authors' code at 088dc81.
    """
    if min_tasks < 0:
        raise ValueError(f"min_tasks is {min_tasks}; it is a number of tasks, at least 0")
    localized = tall_masks(base, finetuned, threshold=threshold, merge=merge)
    mask = consensus_mask(localized.masks, min_tasks)
    kept = zip_entries(lambda m, tau: m * tau, mask, localized.multi_task)
    return to_state_dict(linear_combination([to_vector(base), kept], [1.0, scaling_coef]), like=base)


def consensus_mask(masks: Sequence[Vector], min_tasks: int) -> Vector:
    r"""Return $m_{consensus}$, True where at least `min_tasks` of the masks are.

    Args:
        masks: one TALL-mask per task.
        min_tasks: $k$, at least 0.

    Returns:
        Boolean tensors by name.

    Example:
        >>> masks = [{"w": torch.tensor([True, True])}, {"w": torch.tensor([False, True])}]
        >>> consensus_mask(masks, 2)
        {'w': tensor([False,  True])}
    """
    return zip_entries(lambda *ms: reduce(torch.add, (m.to(torch.int64) for m in ms)) >= min_tasks, *masks)
