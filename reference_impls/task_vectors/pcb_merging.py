r"""PCB-Merging, parameter competition balancing (du2024pcb).

Parameters compete: within a task, for how much they matter to it, and between tasks, where task vectors pull one parameter
in different directions. PCB-Merging gives every parameter of every task a score, the product of its importance within the
task and its agreement with all tasks, drops all but the highest scores and averages the task vectors with what is left of
the scores as weights.

Notation: theta_0 the base model, tau_i = theta_i - theta_0 the task vector of model i as one vector of d entries, n the
number of models, Norm the scaling of a vector to [0, 1] by its smallest and largest entry, K the density, lambda the scaling
coefficient.

Departures: the two activations, exp and tanh, and the limits to magnitudes and scores are those of the authors' code;
whether the paper writes the same was not confirmed. Where all scores of a parameter are zero its merged change is zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from reference_impls.core.selection import check_density
from reference_impls.core.state_dict import StateDict, flatten, linear_combination, task_vector, to_state_dict, to_vector
from reference_impls.core.state_dict import unflatten


def pcb_merging(
    base: StateDict,
    finetuned: Sequence[StateDict],
    *,
    density: float = 0.05,
    scaling_coef: float = 1.2,
    clip: float = 0.01,
) -> StateDict:
    r"""Merge task vectors with weights that balance the competition of parameters within and between tasks.

    $$
    \beta_i = \underbrace{\exp\big(n\,\mathrm{Norm}(|\tau_i|)^2\big)}_{\text{within task } i} \odot
    \underbrace{\sum_j \tanh\big(\hat\tau_i \odot \hat\tau_j\big)}_{\text{between tasks}}, \quad
    \hat\tau_i = \operatorname{sgn}(\tau_i) \odot \mathrm{Norm}(|\tau_i|), \quad
    \hat\beta_i = \mathrm{Norm}\big(\mathrm{top}_K(\beta_i)\big)
    $$
    $$
    \theta = \theta_0 + \lambda\, \frac{\sum_i \hat\beta_i \odot \tau_i}{\sum_i \hat\beta_i}
    $$

    Args:
        base: $\theta_0$, the pre-trained model that all the others were fine-tuned from.
        finetuned: $\theta_1 \dots \theta_n$, n >= 1.
        density: $K$, fraction of each task's scores that stay above zero, in (0, 1]. Default 0.05: authors' code.
        scaling_coef: $\lambda$. Default 1.2: authors' code, where it is searched from 0.8 to 1.3 for each model.
        clip: the fraction of smallest and of largest magnitudes that are moved to the limit of the rest, in [0, 0.5).
            Default 0.01: authors' code.

    Returns:
        A new state dict, structured as `base`.

    Raises:
        ValueError: no models, models of another structure, a density or clip out of range.

    Example:
        The tasks agree in the last entry and disagree in the second, whose scores fall: 2 there loses against -3.

        >>> models = [{"w": torch.tensor([0.0, 2.0, 4.0])}, {"w": torch.tensor([0.0, -3.0, 4.0])}]
        >>> pcb_merging({"w": torch.zeros(3)}, models, density=1.0, scaling_coef=1.0, clip=0.0)["w"].round(decimals=2)
        tensor([ 0., -3.,  4.])

    References:
        du2024pcb, the section on the method (intra-balancing, inter-balancing, drop and rescale).
    """
    check_density(density)
    if not 0 <= clip < 0.5:
        raise ValueError(f"clip is {clip}; it is in [0, 0.5)")
    if not finetuned:
        raise ValueError("received no fine-tuned models; at least one is needed")
    task_vectors = [task_vector(model, base) for model in finetuned]
    taus = torch.stack([flatten(tau) for tau in task_vectors])  # (n, d)
    if taus.numel():
        size = _limit(taus.abs(), clip, clip)
        taus = taus.sign() * size
        scores = _limit(_balance(taus.sign(), _norm(size)), 1 - density, 0.0)  # drop
        scores = _norm(scores)  # rescale
        total = scores.sum(dim=0)
        taus = (scores * taus).sum(dim=0, keepdim=True) / torch.where(total > 0, total, 1)
    merged = unflatten(taus[0], like=task_vectors[0])
    return to_state_dict(linear_combination([to_vector(base), merged], [1.0, scaling_coef]), like=base)


def _balance(signs: Tensor, sizes: Tensor) -> Tensor:
    """Intra-balancing times inter-balancing, (n, d)."""
    n = len(signs)
    signed = signs * sizes
    between = torch.stack([torch.tanh(one * signed).sum(dim=0) for one in signed])
    return torch.exp(n * sizes**2) * between


def _norm(x: Tensor) -> Tensor:
    """Each row scaled to [0, 1]; zero where a row is constant."""
    low, high = x.amin(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)
    return (x - low) / torch.where(high > low, high - low, 1)


def _limit(x: Tensor, lowest: float, highest: float) -> Tensor:
    """Raise the `lowest` fraction of each row to the next value, and lower the `highest`."""
    d = x.shape[1]
    ranked = x.sort(dim=1).values
    low, high = min(d - 1, int(d * lowest + 1e-6)), max(0, int(d * (1 - highest) + 1e-6) - 1)
    return x.clamp(ranked[:, low, None], ranked[:, max(low, high), None])
