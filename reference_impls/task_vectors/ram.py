r"""Reinforced Agent Merging, RAM and RAM+ (yuan2026ram).

Reinforcement learning moves few of a model's parameters, and other ones for other tasks. An average over all models then
shrinks every change that only one model made. RAM looks at how many models moved each parameter: changes shared by several
are averaged, a change made by one model alone is kept whole. RAM+ also enlarges the unique changes of a model, the more of
its changes are shared, to make up for what the averaging of those takes away.

Notation: theta_0 the base model, tau_t = theta_t - theta_0 the task vector of model t, eps the size above which an entry
counts as moved, c the number of models that moved a parameter, rho_t the number of shared over that of unique entries of
model t, r and alpha the strength and the limit of the rescaling, lambda_t the factor of the unique entries.

Departures: none known; the rescaling follows the two parameters and the formula of mergekit, which names the paper. Counts
are taken over the whole model, as in the paper; `scope` has mergekit's count in each tensor. A model without unique entries
has none to rescale.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import hardshrink

from reference_impls.core.blocks import Streamed, each, entrywise, totals
from reference_impls.core.state_dict import StateDict, Vector, linear_combination, task_vector, to_state_dict, to_vector
from reference_impls.core.state_dict import zip_entries


def ram(base: StateDict, finetuned: Sequence[StateDict], *, eps: float = 1e-5) -> StateDict:
    r"""Merge models by averaging the changes they share and keeping the changes that only one of them made.

    $$
    c^p = \#\{t : |\tau_t^p| > \epsilon\}, \qquad
    \theta^p = \theta_0^p + \frac{1}{\max(c^p, 1)} \sum_{t:\, |\tau_t^p| > \epsilon} \tau_t^p
    $$

    Args:
        base: $\theta_0$, the model that all the others were trained from.
        finetuned: $\theta_1 \dots \theta_n$, n >= 1.
        eps: $\epsilon$, an entry of a task vector has moved if it is larger, >= 0. Default 1e-5: mergekit.

    Returns:
        A new state dict, structured as `base`.

    Raises:
        ValueError: no models, models of another structure, a negative eps.

    Example:
        Both models moved the first entry, (2 + 4) / 2 = 3; each of the others was moved by one model.

        >>> models = [{"w": torch.tensor([2.0, 1.0, 0.0])}, {"w": torch.tensor([4.0, 0.0, 5.0])}]
        >>> ram({"w": torch.zeros(3)}, models)
        {'w': tensor([3., 1., 5.])}

    References:
        yuan2026ram, the section on the method (RAM).
    """
    return ram_plus(base, finetuned, eps=eps, r=0.0)


def ram_plus(
    base: StateDict,
    finetuned: Sequence[StateDict],
    *,
    eps: float = 1e-5,
    r: float = 0.1,
    alpha: float = 0.2,
    scope: Literal["model", "tensor"] = "model",
) -> StateDict:
    r"""Merge models as RAM does, with the unique changes of each model enlarged.

    $$
    \theta^p = \theta_0^p + \begin{cases} \lambda_t\, \tau_t^p & c^p = 1, \text{ moved by model } t \\
    \frac{1}{c^p} \sum_{t:\, |\tau_t^p| > \epsilon} \tau_t^p & c^p > 1 \end{cases}, \qquad
    \lambda_t = 1 + r \min(\rho_t, \alpha), \qquad \rho_t = \frac{\text{shared entries of } t}{\text{unique entries of } t}
    $$

    Args:
        base: $\theta_0$, the model that all the others were trained from.
        finetuned: $\theta_1 \dots \theta_n$, n >= 1.
        eps: $\epsilon$, an entry of a task vector has moved if it is larger, >= 0. Default 1e-5: mergekit.
        r: strength of the rescaling, >= 0. Default 0.1: mergekit.
        alpha: $\alpha$, limit of the ratio of shared to unique entries, >= 0. Default 0.2: mergekit.
        scope: where shared and unique entries are counted: over the "model" (the paper) or in each "tensor"
            (ramplus_tl of mergekit). Default "model": the paper.

    Returns:
        A new state dict, structured as `base`.

    Raises:
        ValueError: no models, models of another structure, a negative eps, r or alpha, an unknown scope.

    Example:
        The first entry is shared, the others are unique. The first model has one shared and two unique entries, ratio 0.5;
        the second ratio 1, limited to 0.5. The factor of the unique entries is 1 + 0.1 * 0.5 = 1.05 for both.

        >>> models = [{"w": torch.tensor([2.0, 1.0, -2.0, 0.0])}, {"w": torch.tensor([4.0, 0.0, 0.0, 5.0])}]
        >>> ram_plus({"w": torch.zeros(4)}, models, alpha=0.5)
        {'w': tensor([ 3.0000,  1.0500, -2.1000,  5.2500])}

    References:
        yuan2026ram, the section on the method (RAM+).
    """
    for name, value in (("eps", eps), ("r", r), ("alpha", alpha)):
        if value < 0:
            raise ValueError(f"{name} is {value}; it is at least 0")
    if scope not in ("model", "tensor"):
        raise ValueError(f"scope is {scope!r}; it is one of model, tensor")
    if not finetuned:
        raise ValueError("received no fine-tuned models; at least one is needed")
    task_vectors = [task_vector(model, base) for model in finetuned]
    merged = {}
    for keys in [[key] for key in task_vectors[0]] if scope == "tensor" else [[*task_vectors[0]]]:
        parts = [{key: tau[key] for key in keys} for tau in task_vectors]
        factors = _factors(parts, eps, r, alpha) if r else [1.0] * len(parts)
        merged |= zip_entries(lambda *taus, factors=factors: _merge(taus, factors, eps), *parts)
    return to_state_dict(linear_combination([to_vector(base), merged], [1.0, 1.0]), like=base)


def _factors(task_vectors: Sequence[Vector], eps: float, r: float, alpha: float) -> list[float]:
    """lambda_t: how much the unique changes of each model are enlarged."""
    counts = [sum(numbers) for numbers in zip(*each(lambda *taus: _count(taus, eps), *(tau.values() for tau in task_vectors)))]
    n = len(task_vectors)
    return [1 + r * min(shared / max(unique, 1), alpha) for shared, unique in zip(counts[:n], counts[n:])]


def _count(taus: Sequence[Tensor | Streamed], eps: float) -> list[float]:
    """How many entries of each model are shared, then how many are unique."""
    shared = [entrywise(lambda *x, i=i: _moved(x[i], eps) * (_moved_by(x, eps) > 1), *taus) for i in range(len(taus))]
    unique = [entrywise(lambda *x, i=i: _moved(x[i], eps) * (_moved_by(x, eps) == 1), *taus) for i in range(len(taus))]
    return totals(*shared, *unique)


def _merge(taus: Sequence[Tensor], factors: Sequence[float], eps: float) -> Tensor:
    """The mean of what several models moved; what one moved alone, times its factor."""
    moved = [hardshrink(tau, eps) for tau in taus]
    count = _moved_by(taus, eps)
    alone = (2 - count).clamp(0, 1)  # one where at most one model moved the parameter, which is then the whole sum
    mean = reduce(torch.add, moved) / count.clamp(min=1)
    return alone * reduce(torch.add, (f * tau for f, tau in zip(factors, moved))) + (1 - alone) * mean


def _moved(tau: Tensor, eps: float) -> Tensor:
    """One where an entry has moved, zero elsewhere."""
    return hardshrink(tau, eps).sign().abs()


def _moved_by(taus: Sequence[Tensor], eps: float) -> Tensor:
    return reduce(torch.add, (_moved(tau, eps) for tau in taus))
