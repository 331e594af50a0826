r"""SCE: select, calculate, erase (wan2024fusechat).

Fine-tuned copies of one base model differ most where they learned different things. SCE keeps, in every parameter matrix,
the positions where the task vectors vary most from model to model, weighs each model in that matrix by how far it moved
there, erases the values whose sign has the smaller total movement, and adds the weighted mean of the rest to the base model.

Notation: theta_0 the base model, delta_t = theta_t - theta_0 the task vector of model t within one parameter matrix, tau the
fraction of positions selected, eta_t the coefficient of model t for that matrix, gamma the elected sign.

Departures: what remains after the erasure is divided by the coefficients of the models that remain, as in the implementation
that the authors gave to mergekit. A sum of exactly zero elects plus, also as there. Positions of equal variance at the
threshold are all selected.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from reference_impls.core.blocks import Streamed, again, entrywise, totals
from reference_impls.core.selection import check_density, count_kept, keep_largest
from reference_impls.core.state_dict import StateDict, linear_combination, task_vector, to_state_dict, to_vector


def sce(base: StateDict, finetuned: Sequence[StateDict], *, density: float = 1.0) -> StateDict:
    r"""Merge fine-tuned models by selecting positions, calculating coefficients and erasing minority signs.

    $$
    \hat\delta_t = \mathrm{top}_\tau\big(\operatorname{Var}_s \delta_s\big) \odot \delta_t, \qquad
    \eta_t = \frac{\lVert\hat\delta_t\rVert^2}{\sum_s \lVert\hat\delta_s\rVert^2}, \qquad
    \theta^p = \theta_0^p + \frac{\sum_{t \in A^p} \eta_t\, \hat\delta_t^p}{\sum_{t \in A^p} \eta_t}, \qquad
    A^p = \{t : \operatorname{sgn}\hat\delta_t^p = \gamma^p\}
    $$

    with $\gamma = \operatorname{sgn} \sum_t \hat\delta_t$; all of it in each parameter matrix on its own.

    Args:
        base: $\theta_0$, the pre-trained model (in FuseChat the pivot) that all the others were fine-tuned from.
        finetuned: $\theta_1 \dots \theta_n$, n >= 1.
        density: $\tau$, fraction kept of the positions whose variance is not zero, in (0, 1]. Default 1.0: all, the default
            of the authors' implementation in mergekit; the paper tunes it.

    Returns:
        A new state dict, structured as `base`.

    Raises:
        ValueError: no models, models of another structure, density outside (0, 1].

    Example:
        Squared lengths 1 + 1 = 2 and 9 + 9 = 18: coefficients 0.1 and 0.9. Both agree in the first entry,
        0.1 * 1 + 0.9 * 3 = 2.8; in the second plus wins and only 3 is left.

        >>> sce({"w": torch.zeros(2)}, [{"w": torch.tensor([1.0, -1.0])}, {"w": torch.tensor([3.0, 3.0])}])
        {'w': tensor([2.8000, 3.0000])}

    References:
        wan2024fusechat, the section on SCE merging (select, calculate, erase).
    """
    check_density(density)
    if not finetuned:
        raise ValueError("received no fine-tuned models; at least one is needed")
    deltas = [task_vector(model, base) for model in finetuned]
    merged = {key: _merge_matrix([delta[key] for delta in deltas], density) for key in deltas[0]}
    return to_state_dict(linear_combination([to_vector(base), merged], [1.0, 1.0]), like=base)


def _merge_matrix(deltas: Sequence[Tensor | Streamed], density: float) -> Tensor | Streamed:
    """The three steps within one parameter matrix."""
    if density < 1:  # select
        variance = again(entrywise(_variance, *deltas))
        varying = int(totals(entrywise(torch.sign, variance))[0])
        selected = entrywise(torch.sign, keep_largest(variance, count_kept(varying, density)))
        deltas = [entrywise(torch.mul, delta, selected) for delta in deltas]
    energy = totals(*(entrywise(lambda x: x.double().square(), delta) for delta in deltas))  # calculate: single would underflow
    eta = [e / (sum(energy) or 1.0) for e in energy]
    return entrywise(lambda *x: _erase(x, eta), *deltas)


def _variance(*deltas: Tensor) -> Tensor:
    mean = reduce(torch.add, deltas) / len(deltas)
    return reduce(torch.add, ((delta - mean).square() for delta in deltas)) / len(deltas)


def _erase(deltas: Sequence[Tensor], eta: Sequence[float]) -> Tensor:
    """The weighted mean of the values that have the elected sign."""
    elected = reduce(torch.add, deltas).sign()
    elected = elected + (1 - elected.abs())  # plus where the sum is zero
    remaining = [(elected * delta).relu() for delta in deltas]  # magnitudes
    mass = reduce(torch.add, (w * x for w, x in zip(eta, remaining)))
    total = reduce(torch.add, (w * x.sign() for w, x in zip(eta, remaining)))
    return elected * mass / (total + (1 - total.sign()))  # 0 / 1 where nothing remains
