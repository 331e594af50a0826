r"""TIES-Merging (yadav2023ties).

Fine-tuned models disagree for two reasons: most of the entries of a task vector are small and carry no task, and the
models pull some entries in opposite directions. TIES first resets the small entries of each task vector, then elects for every
parameter the sign that has the larger total movement, and averages only the values that agree with the elected sign.

Notation: theta_0 the base model, tau_t = theta_t - theta_0 the task vector of model t, K the density, lambda the scaling coefficient.

Departures: none. Where the sum of a parameter's values is exactly zero the paper's equation elects no sign; as in the authors' code
the sign of the majority of all parameters then decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from reference_impls.core.selection import check_density, count_kept, keep_largest
from reference_impls.core.state_dict import StateDict, Vector, flatten, linear_combination, task_vector, to_state_dict
from reference_impls.core.state_dict import to_vector, unflatten


def ties_merging(
    base: StateDict,
    finetuned: Sequence[StateDict],
    *,
    density: float = 0.2,
    scaling_coef: float = 1.0,
    trim: Literal["global", "tensor"] = "global",
    elect: Literal["mass", "count"] = "mass",
    aggregate: Literal["mean", "sum", "max"] = "mean",
    weights: Sequence[float] | None = None,
) -> StateDict:
    r"""Merge fine-tuned models by trimming, electing signs and averaging what agrees.

    $$
    \hat\tau_t = \mathrm{top}_K(\tau_t), \qquad
    \gamma = \operatorname{sgn}\Big(\sum_t \hat\tau_t\Big), \qquad
    \tau_m^p = \frac{1}{|A^p|}\sum_{t \in A^p} \hat\tau_t^p
    \ \text{ with }\ A^p = \{t : \operatorname{sgn}\hat\tau_t^p = \gamma^p\}, \qquad
    \theta = \theta_0 + \lambda\,\tau_m
    $$

    Args:
        base: $\theta_0$, the pre-trained model that all the others were fine-tuned from.
        finetuned: $\theta_1 \dots \theta_n$, n >= 1.
        density: $K$, fraction of each task vector's entries kept, in (0, 1]. Default 0.2: the paper's recipe without validation data (top 20%).
        scaling_coef: $\lambda$, multiplies the merged task vector. Default 1.0: the same recipe.
        trim: "global" ranks the entries of the whole task vector (the paper); "tensor" ranks within each tensor
            (mergekit, PEFT). Default "global": Algorithm 1.
        elect: "mass" elects the sign of the sum of values (the paper); "count" the sign that more models have
            (an option of mergekit and PEFT). Default "mass": Sec. 4.2.
        aggregate: "mean" of the agreeing values (the paper), their "sum", or the "max" magnitude among them
            (options of the authors' code). Default "mean": Sec. 4.2.
        weights: one factor per model, applied to its trimmed task vector before the election; the mean then divides by the
            sum of the agreeing models' weights (mergekit). Default None: all ones, the paper has no weights.

    Returns:
        A new state dict, structured as `base`.

    Raises:
        ValueError: no models, models of another structure, density outside (0, 1], an unknown option,
            another number of weights than of models.

    Example:
        Density 1 trims nothing. First entry: the sum -4 elects minus, and -5 is the only value that agrees.
        Second entry: all agree, and the mean of 2, 4 and 6 is 4.

        >>> base = {"w": torch.zeros(2)}
        >>> models = [{"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([0.0, 4.0])}, {"w": torch.tensor([-5.0, 6.0])}]
        >>> ties_merging(base, models, density=1.0)
        {'w': tensor([-5.,  4.])}

    References:
        yadav2023ties, Sec. 4.2 and Algorithm 1.
    """
    check_density(density)
    for name, value, allowed in (
        ("trim", trim, ("global", "tensor")),
        ("elect", elect, ("mass", "count")),
        ("aggregate", aggregate, ("mean", "sum", "max")),
    ):
        if value not in allowed:
            raise ValueError(f"{name} is {value!r}; it is one of {', '.join(allowed)}")
    if not finetuned:
        raise ValueError("received no fine-tuned models; at least one is needed")

    weights = [1.0] * len(finetuned) if weights is None else list(weights)
    if len(weights) != len(finetuned):
        raise ValueError(f"received {len(weights)} weights for {len(finetuned)} models; one weight per model is needed")

    task_vectors = [task_vector(model, base) for model in finetuned]
    trimmed = torch.stack([w * flatten(_trim(tau, density, trim)) for w, tau in zip(weights, task_vectors)])  # (n, d)
    merged = _disjoint_merge(trimmed, _elect(trimmed, elect), trimmed.new_tensor(weights), aggregate)  # (d,)
    theta_0 = to_vector(base)
    theta = linear_combination([theta_0, unflatten(merged, theta_0)], [1.0, scaling_coef])
    return to_state_dict(theta, like=base)


def _trim(tau: Vector, density: float, scope: str) -> Vector:
    """Step 1: keep the largest magnitudes, reset the rest to zero."""
    if scope == "tensor":
        return {key: keep_largest(tensor, count_kept(tensor.numel(), density)) for key, tensor in tau.items()}
    flat = flatten(tau)
    return unflatten(keep_largest(flat, count_kept(flat.numel(), density)), like=tau)


def _elect(trimmed: Tensor, by: str) -> Tensor:
    """Step 2: one sign per parameter, (n, d) -> (d,)."""
    votes = trimmed if by == "mass" else trimmed.sign()
    signs = votes.sum(dim=0).sign()
    return torch.where(signs == 0, signs.sum().sign(), signs)  # the majority decides where the sum is zero


def _disjoint_merge(trimmed: Tensor, signs: Tensor, weights: Tensor, how: str) -> Tensor:
    """Step 3: combine the values whose sign was elected, (n, d) -> (d,)."""
    agreeing = torch.where(trimmed.sign() == signs, trimmed, 0)
    if how == "sum":
        return agreeing.sum(dim=0)
    if how == "max":
        return agreeing.abs().amax(dim=0) * signs
    total = weights @ (agreeing != 0).to(weights.dtype)  # without weights, the number of agreeing models
    return agreeing.sum(dim=0) / torch.where(total == 0, 1, total)
