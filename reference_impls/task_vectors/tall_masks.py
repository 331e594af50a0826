r"""TALL-masks (wang2024localizing).

The sum of task vectors still holds what each task needs, mixed with what the others need. For every task a mask finds
the parameters where the sum is about as close to the fine-tuned model as the base is, or closer; the sum, cut by that
mask and added to the base, reconstructs the fine-tuned model. Stored are one vector and one bit per parameter and
task.

Notation: theta_0 the base model, tau_t = theta_t - theta_0 the task vector of model t, tau_MTL the multi-task vector,
m_t the mask and lambda_t the threshold of task t.

Departures: none. The paper picks each lambda_t on validation data of its task; here the caller passes it, one for all
or one each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from reference_impls.core.state_dict import StateDict, Vector, linear_combination, task_vector, to_state_dict, to_vector
from reference_impls.core.state_dict import zip_entries
from reference_impls.task_vectors.ties_merging import merge_task_vectors


@dataclass(frozen=True)
class MaskedModel:
    """One multi-task vector, and for each task a mask.

    Attributes:
        base: the base model.
        multi_task: the multi-task vector.
        masks: for each task, True where it uses the multi-task vector.
    """

    base: StateDict
    multi_task: Vector
    masks: tuple[Vector, ...]

    def model(self, task: int) -> StateDict:
        """Return the model that answers `task`: the base plus the masked multi-task vector."""
        tau = zip_entries(lambda m, v: m * v, self.masks[task], self.multi_task)
        return to_state_dict(linear_combination([to_vector(self.base), tau], [1.0, 1.0]), like=self.base)


def tall_masks(
    base: StateDict,
    finetuned: Sequence[StateDict],
    *,
    threshold: float | Sequence[float] = 0.4,
    merge: Literal["sum", "ties"] = "sum",
) -> MaskedModel:
    r"""Find for each task the parameters of the multi-task vector that reconstruct its fine-tuned model.

    $$
    m_t = \big[\, |\tau_t| \ge \lambda_t\, |\tau_{MTL} - \tau_t| \,\big], \qquad
    \tau_{MTL} = \sum_t \tau_t, \qquad
    \theta_{(t)} = \theta_0 + m_t \odot \tau_{MTL}
    $$

    Without $\lambda_t$ (that is, 1) the mask is the one of least L1 distance between $\theta_{(t)}$ and $\theta_t$.

    Args:
        base: $\theta_0$, the pre-trained model that all the others were fine-tuned from.
        finetuned: $\theta_1 \dots \theta_n$, n >= 1.
        threshold: $\lambda_t$, >= 0, one number for all tasks or one per task; 0 takes every parameter, a large one only those
            that no other task moves. Default 0.4: the middle of the grid 0.2, 0.3, ... 0.6 from which the authors' code picks
            each task's value on validation data.
        merge: how the multi-task vector is made: the "sum" of task vectors, or "ties" (density 0.2, sum of the agreeing
            values, as in the authors' code). Default "sum": task arithmetic, as in the paper.

    Returns:
        A `MaskedModel`: `model(t)` is the reconstruction of model t, `multi_task` and `masks` are its parts.

    Raises:
        ValueError: no models, models of another structure, a negative threshold, another number of thresholds, an unknown option.

    Example:
        The sum is (4, 2). First model: 1 < 0.4 * 3 and 2 >= 0.4 * 0. Second model: 3 >= 0.4 * 1 and 0 < 0.4 * 2.

        >>> import torch
        >>> models = [{"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, 0.0])}]
        >>> merged = tall_masks({"w": torch.zeros(2)}, models)
        >>> merged.model(0), merged.model(1)
        ({'w': tensor([0., 2.])}, {'w': tensor([4., 0.])})

    References:
        wang2024localizing (TALL-masks); authors' code at 088dc81.
    """
    thresholds = [float(threshold)] * len(finetuned) if isinstance(threshold, (int, float)) else [float(x) for x in threshold]
    if len(thresholds) != len(finetuned):
        raise ValueError(f"received {len(thresholds)} thresholds for {len(finetuned)} models; one for all or one each is needed")
    if any(not x >= 0 for x in thresholds):
        raise ValueError(f"threshold is {threshold}; it is a factor of at least 0")
    task_vectors = [task_vector(model, base) for model in finetuned]
    multi_task = multi_task_vector(base, finetuned, merge)
    return MaskedModel(base, multi_task, tuple(tall_mask(tau, multi_task, x) for tau, x in zip(task_vectors, thresholds)))


def multi_task_vector(base: StateDict, finetuned: Sequence[StateDict], merge: str = "sum") -> Vector:
    r"""Return $\tau_{MTL}$, the vector that is to be cut.

    Args:
        base: $\theta_0$.
        finetuned: $\theta_1 \dots \theta_n$.
        merge: "sum" or "ties", as in `tall_masks`. Default "sum": task arithmetic.

    Returns:
        A vector of the names and shapes of a task vector.

    Raises:
        ValueError: no models, or an unknown option.

    Example:
        >>> import torch
        >>> multi_task_vector({"w": torch.tensor([1.0])}, [{"w": torch.tensor([2.0])}, {"w": torch.tensor([4.0])}])
        {'w': tensor([4.])}
    """
    if merge not in ("sum", "ties"):
        raise ValueError(f"merge is {merge!r}; it is one of sum, ties")
    if not finetuned:
        raise ValueError("received no fine-tuned models; at least one is needed")
    task_vectors = [task_vector(model, base) for model in finetuned]
    if merge == "sum":
        return linear_combination(task_vectors, [1.0] * len(task_vectors))
    return merge_task_vectors(task_vectors, density=0.2, aggregate="sum")


def tall_mask(tau: Vector, multi_task: Vector, threshold: float) -> Vector:
    r"""Return the mask of one task, $m = [\,|\tau| \ge \lambda\,|\tau_{MTL} - \tau|\,]$.

    Args:
        tau: $\tau_t$, the task vector.
        multi_task: $\tau_{MTL}$.
        threshold: $\lambda_t$, at least 0.

    Returns:
        Boolean tensors by name.

    Example:
        >>> import torch
        >>> tall_mask({"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([4.0, 2.0])}, 0.4)
        {'w': tensor([False,  True])}
    """
    return zip_entries(lambda t, m: t.abs() >= threshold * (m - t).abs(), tau, multi_task)
