r"""EMR-Merging (huang2024emr).

One merged model cannot be as good as each fine-tuned one, but one shared task vector with a little for each task
nearly can. EMR elects a unified task vector that holds, for every parameter, the largest movement in the direction in
which most movement goes. Each task then keeps a mask of the parameters where it agrees with that direction, and one
number that restores its size.

Notation: theta_0 the base model, tau_t = theta_t - theta_0 the task vector of model t, gamma the elected signs,
tau_uni the unified task vector, M_t the mask and lambda_t the rescaler of task t.

Departures: none. Where the sum of a parameter's values is exactly zero the paper's sign is zero and the parameter
stays that of the base; `zero_sum` has the rule of the authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Literal

import torch
from torch import Tensor

from reference_impls.core.blocks import each, entrywise, totals
from reference_impls.core.state_dict import StateDict, Vector, linear_combination, task_vector, to_state_dict, to_vector
from reference_impls.core.state_dict import zip_entries


@dataclass(frozen=True)
class UnifiedModel:
    """One task vector for all tasks, and for each task a mask and a number.

    Attributes:
        base: the base model.
        unified: the unified task vector.
        masks: for each task, True where its task vector agrees in sign with the unified one.
        rescalers: one factor per task, (n,).
    """

    base: StateDict
    unified: Vector
    masks: tuple[Vector, ...]
    rescalers: Tensor

    def model(self, task: int) -> StateDict:
        """Return the model that answers `task`: the base plus the rescaled, masked unified task vector."""
        tau = zip_entries(lambda m, u: self.rescalers[task].to(u) * m * u, self.masks[task], self.unified)
        return to_state_dict(linear_combination([to_vector(self.base), tau], [1.0, 1.0]), like=self.base)


def emr_merging(
    base: StateDict,
    finetuned: Sequence[StateDict],
    *,
    rescale: Literal["total", "tensor"] = "total",
    unify: Literal["max", "sum"] = "max",
    zero_sum: Literal["none", "minus"] = "none",
) -> UnifiedModel:
    r"""Elect a unified task vector, and keep for each task a mask of agreement and a rescaler.

    $$
    \gamma = \operatorname{sgn}\Big(\sum_t \tau_t\Big), \qquad
    \tau_{uni}^p = \gamma^p \max_{t:\, \gamma^p \tau_t^p > 0} |\tau_t^p|, \qquad
    M_t = [\tau_t \odot \tau_{uni} > 0], \qquad
    \lambda_t = \frac{\sum |\tau_t|}{\sum |M_t \odot \tau_{uni}|}, \qquad
    \theta_{(t)} = \theta_0 + \lambda_t\, M_t \odot \tau_{uni}
    $$

    Args:
        base: $\theta_0$, the pre-trained model that all the others were fine-tuned from.
        finetuned: $\theta_1 \dots \theta_n$, n >= 1.
        rescale: "total" sums over all parameters (the paper); "tensor" adds up the means of the tensors, so that a bias counts
            as much as a matrix (main script of the authors, FusionBench). Default "total": the paper's rescaler.
        unify: "max" takes the largest agreeing magnitude (the paper); "sum" the sum of the agreeing values (a later commit
            of the authors' code for BEiT-3). Default "max": the paper.
        zero_sum: what is elected where the values of a parameter add up to zero: "none", or "minus" (the authors' code).
            Default "none": the paper, where the sign of zero is zero.

    Returns:
        A `UnifiedModel`: `model(t)` is the model of task t, `unified`, `masks` and `rescalers` are its parts.

    Raises:
        ValueError: no models, models of another structure, an unknown option.

    Example:
        The sums 4 and -1 elect plus and minus; the largest agreeing values are 3 and -2. The second model agrees in the
        first entry only, has moved by 3 + 1 = 4 in all, and is rescaled by 4 / 3.

        >>> models = [{"w": torch.tensor([1.0, -2.0])}, {"w": torch.tensor([3.0, 1.0])}]
        >>> merged = emr_merging({"w": torch.zeros(2)}, models)
        >>> merged.unified["w"], merged.rescalers
        (tensor([ 3., -2.]), tensor([0.6000, 1.3333]))
        >>> merged.model(1)
        {'w': tensor([4., 0.])}

    References:
        huang2024emr, the steps elect, mask and rescale.
    """
    for name, value, allowed in (
        ("rescale", rescale, ("total", "tensor")), ("unify", unify, ("max", "sum")), ("zero_sum", zero_sum, ("none", "minus")),
    ):  # fmt: skip
        if value not in allowed:
            raise ValueError(f"{name} is {value!r}; it is one of {', '.join(allowed)}")
    if not finetuned:
        raise ValueError("received no fine-tuned models; at least one is needed")

    task_vectors = [task_vector(model, base) for model in finetuned]
    unified = zip_entries(lambda *taus: _elect(taus, unify, zero_sum), *task_vectors)
    masks = tuple(zip_entries(lambda tau, u: tau * u.sign() > 0, tau, unified) for tau in task_vectors)
    masked = [zip_entries(lambda m, u: m * u, mask, unified) for mask in masks]
    moved, kept = (_sizes(vectors, rescale) for vectors in (task_vectors, masked))
    ratios = [before / (after or 1.0) for before, after in zip(moved, kept)]  # 0 / 1 without movement
    return UnifiedModel(base, unified, masks, torch.tensor(ratios))


def _elect(taus: Sequence[Tensor], unify: str, zero_sum: str) -> Tensor:
    """Step 1: the sign of the sum, with the largest agreeing magnitude."""
    signs = reduce(torch.add, taus).sign()
    if zero_sum == "minus":
        signs = signs - (1 - signs.abs())
    agreeing = [(tau * signs).relu() for tau in taus]  # magnitudes
    return signs * reduce(torch.maximum if unify == "max" else torch.add, agreeing)


def _sizes(vectors: Sequence[Vector], by: str) -> list[float]:
    """Step 3: how far each vector goes."""
    keys = [key for key, tensor in vectors[0].items() if tensor.numel()]
    sums = each(lambda key: totals(*(entrywise(torch.abs, vector[key]) for vector in vectors)), keys)
    shares = [1 if by == "total" else vectors[0][key].numel() for key in keys]
    return [sum(s / share for s, share in zip(column, shares)) for column in zip(*sums)] or [0.0] * len(vectors)
