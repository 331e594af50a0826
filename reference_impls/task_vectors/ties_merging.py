r"""TIES-Merging (yadav2023ties).

Fine-tuned models disagree for two reasons: most of the entries of a task vector are small and carry no task, and the
models pull some entries in opposite directions. TIES first resets the small entries of each task vector, then elects for every
parameter the sign that has the larger total movement, and averages only the values that agree with the elected sign.

Notation: theta_0 the base model, tau_t = theta_t - theta_0 the task vector of model t, K the density, lambda the scaling
coefficient.

Departures: none. Where the sum of a parameter's values is exactly zero the paper's equation elects no sign; as in the authors'
code the sign of the majority of all parameters then decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Literal

import torch
from torch import Tensor

from reference_impls.core.blocks import each, totals
from reference_impls.core.selection import check_density, count_kept, keep_at_least, largest_magnitudes, one_each
from reference_impls.core.state_dict import StateDict, Vector, linear_combination, task_vector, to_state_dict
from reference_impls.core.state_dict import to_vector, zip_entries


def ties_merging(
    base: StateDict,
    finetuned: Sequence[StateDict],
    *,
    density: float | Sequence[float] = 0.2,
    scaling_coef: float = 1.0,
    trim: Literal["global", "tensor"] = "global",
    elect: Literal["mass", "count"] = "mass",
    aggregate: Literal["mean", "sum", "max"] = "mean",
    weights: Sequence[float] | None = None,
    zero_sum: Literal["majority", "plus"] = "majority",
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
        density: $K$, fraction of each task vector's entries kept, in (0, 1], one for all models or one each. Default 0.2: the
            paper's recipe without validation data (top 20%).
        scaling_coef: $\lambda$, multiplies the merged task vector. Default 1.0: the same recipe.
        trim: "global" ranks the entries of the whole task vector (the paper); "tensor" ranks within each tensor
            (mergekit, PEFT). Default "global": Algorithm 1.
        elect: "mass" elects the sign of the sum of values (the paper); "count" the sign that more models have
            (an option of mergekit and PEFT). Default "mass": Sec. 4.2.
        aggregate: "mean" of the agreeing values (the paper), their "sum", or the "max" magnitude among them
            (options of the authors' code). Default "mean": Sec. 4.2.
        weights: one factor per model, applied to its trimmed task vector before the election; the mean then divides by the
            sum of the agreeing models' weights (mergekit). Default None: all ones, the paper has no weights.
        zero_sum: what is elected where the values of a parameter add up to zero: the sign of the "majority" of all parameters
            (authors' code) or "plus" (mergekit, PEFT). Default "majority": the authors' code.

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
    if not finetuned:
        raise ValueError("received no fine-tuned models; at least one is needed")
    merged = merge_task_vectors(
        [task_vector(model, base) for model in finetuned],
        density=density, trim=trim, elect=elect, aggregate=aggregate, weights=weights, zero_sum=zero_sum,
    )  # fmt: skip
    return to_state_dict(linear_combination([to_vector(base), merged], [1.0, scaling_coef]), like=base)


def merge_task_vectors(
    task_vectors: Sequence[Vector],
    *,
    density: float | Sequence[float] = 0.2,
    trim: str = "global",
    elect: str = "mass",
    aggregate: str = "mean",
    weights: Sequence[float] | None = None,
    zero_sum: str = "majority",
) -> Vector:
    r"""The three steps on task vectors, $\tau_m$ of $\tau_1 \dots \tau_n$; all options as in `ties_merging`.

    Example:
        >>> merge_task_vectors([{"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([-3.0, 4.0])}], density=1.0)
        {'w': tensor([-3.,  3.])}
    """
    for name, value, allowed in (
        ("trim", trim, ("global", "tensor")),
        ("elect", elect, ("mass", "count")),
        ("aggregate", aggregate, ("mean", "sum", "max")),
        ("zero_sum", zero_sum, ("majority", "plus")),
    ):
        if value not in allowed:
            raise ValueError(f"{name} is {value!r}; it is one of {', '.join(allowed)}")
    densities = one_each("density", density, len(task_vectors))
    weights = [1.0] * len(task_vectors) if weights is None else list(weights)
    if len(weights) != len(task_vectors):
        raise ValueError(f"received {len(weights)} weights for {len(task_vectors)} models; one weight per model is needed")
    trimmed = [_trim(tau, k, trim) for tau, k in zip(task_vectors, densities)]
    trimmed = [linear_combination([tau], [w]) for tau, w in zip(trimmed, weights)]
    signs = _elect(trimmed, elect, zero_sum)
    return zip_entries(lambda s, *values: _disjoint_merge(s, values, weights, aggregate), signs, *trimmed)


def _trim(tau: Vector, density: float, scope: str) -> Vector:
    """Step 1: keep the largest magnitudes, reset the rest to zero."""
    check_density(density)
    if density == 1:
        return tau
    kept = {}
    for keys in [[key] for key in tau] if scope == "tensor" else [[*tau]]:
        tensors = [tau[key] for key in keys]
        k = count_kept(sum(tensor.numel() for tensor in tensors), density)
        threshold = largest_magnitudes(tensors, [k])[0] if k else 0.0
        kept |= {key: keep_at_least(tensor, threshold) for key, tensor in zip(keys, tensors)}
    return kept


def _elect(trimmed: Sequence[Vector], by: str, zero_sum: str) -> Vector:
    """Step 2: one sign per parameter."""
    vote = (lambda x: x) if by == "mass" else torch.sign
    signs = zip_entries(lambda *values: reduce(torch.add, map(vote, values)).sign(), *trimmed)
    sign = lambda x: float((x > 0) - (x < 0))  # noqa: E731
    deciding = 1.0 if zero_sum == "plus" else sign(sum(t for (t,) in each(totals, [*signs.values()])))  # where the sum is zero
    return zip_entries(lambda s: (s + deciding / 2).sign(), signs)


def _disjoint_merge(signs: Tensor, trimmed: Sequence[Tensor], weights: Sequence[float], how: str) -> Tensor:
    """Step 3: combine the values whose sign was elected."""
    agreeing = [(signs * values).relu() for values in trimmed]  # magnitudes
    if how == "max":
        return signs * reduce(torch.maximum, agreeing)
    mass = signs * reduce(torch.add, agreeing)
    if how == "sum":
        return mass
    count = reduce(torch.add, (w * values.sign() for w, values in zip(weights, agreeing)))  # of agreeing models
    return mass / (count + (1 - count.abs().sign()))  # 0 / 1 where no value agrees
