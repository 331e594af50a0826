r"""DELLA, with its pruning step MAGPRUNE (deep2024della).

DARE drops the entries of a task vector with one probability for all; but small entries can be spared more easily than
large ones. MAGPRUNE ranks the entries of each row by magnitude and drops the smaller ones more often, dividing every
survivor by its own probability of survival, so that the expected task vector is still the original. Signs are then
elected as in TIES, and what agrees is averaged.

Notation: delta_t = theta_t - theta_0 the task vector of model t, p the mean drop rate, K = 1 - p the density, eps the
width of the range of drop rates, r_i the rank of entry i in its row of n (0 for the largest), m_t the mask of what is
kept, lambda the scaling coefficient.

Departures: the paper writes a step of eps / n per rank; as in the authors' code the step here is eps / (n - 1), so
that the rates run from p - eps/2 to p + eps/2 with mean p. A row of one entry has the rate p. A row is one output
unit: all but the first axis of a tensor. The masks' probabilities are counted in steps of 1/65536.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from reference_impls.core.sampling import bernoulli
from reference_impls.core.selection import check_density, one_each, order_by_magnitude
from reference_impls.core.state_dict import StateDict, Vector, linear_combination, task_vector, to_state_dict, to_vector
from reference_impls.core.state_dict import zip_entries, zip_rows
from reference_impls.task_vectors.dare import restore_mass
from reference_impls.task_vectors.ties_merging import merge_task_vectors


def della(
    base: StateDict,
    finetuned: Sequence[StateDict],
    *,
    density: float | Sequence[float] = 0.7,
    epsilon: float | Sequence[float] = 0.14,
    scaling_coef: float = 1.1,
    merge: Literal["elect", "sum"] = "elect",
    rescale: Literal["probability", "mass", "none"] = "probability",
    weights: Sequence[float] | None = None,
    aggregate: Literal["mean", "sum"] = "mean",
    zero_sum: Literal["majority", "plus"] = "majority",
    generator: torch.Generator | None = None,
) -> StateDict:
    r"""Drop small entries more often than large ones, rescale the rest, elect signs and fuse.

    $$
    p_i = p - \tfrac{\epsilon}{2} + \frac{\epsilon\, r_i}{n - 1}, \qquad
    m_i \sim \mathrm{Bernoulli}(1 - p_i), \qquad
    \hat\delta_i = \frac{m_i\, \delta_i}{1 - p_i}, \qquad \mathbb{E}\,\hat\delta_i = \delta_i,
    $$
    $$
    \theta = \theta_0 + \lambda\, \operatorname{mean}\{\hat\delta_t : \operatorname{sgn} \hat\delta_t = \gamma\},
    \qquad \gamma = \operatorname{sgn}\Big(\sum_t \hat\delta_t\Big)
    $$

    Args:
        base: $\theta_0$, the pre-trained model that all the others were fine-tuned from.
        finetuned: $\theta_1 \dots \theta_n$, n >= 1.
        density: $K = 1 - p$, mean probability of being kept, in (0, 1], one for all models or one each; 1 drops nothing. Default
            0.7: the drop rate 0.3 of the README of the authors' code; the paper searches it for every merge.
        epsilon: $\epsilon$, full width of the range of drop rates, >= 0, at most twice the smaller of K and 1 - K unless K = 1;
            0 is DARE. One for all models or one each. Default 0.14: the window size in the same README.
        scaling_coef: $\lambda$. Default 1.1: the same README.
        merge: "elect" elects signs and averages what agrees (the paper); "sum" adds the task vectors up
            (della_linear of mergekit). Default "elect": the paper.
        rescale: "probability" divides by the entry's own probability (the paper); "mass" multiplies each tensor by its L1 norm
            before over after the drop (mergekit); "none". Default "probability": the paper.
        weights: one factor per model, applied before the election, which then divides by the weights of what agrees.
            Default None: all 1.
        aggregate: what "elect" makes of the values that agree, their "mean" or their "sum". Default "mean": the paper.
        zero_sum: which sign "elect" elects where values add up to zero, "majority" or "plus" (mergekit).
            Default "majority": as in TIES.
        generator: source of the masks. Default None: a new one with seed 0.

    Returns:
        A new state dict, structured as `base`.

    Raises:
        ValueError: no models, models of another structure, a density or epsilon out of range, an unknown option,
            another number of weights than of models.

    Example:
        In a row of two with density 0.5 and epsilon 0.5 the larger entry is kept with probability 0.75, the smaller with 0.25:
        what is left of 3 is 3 / 0.75 = 4, what is left of 1 is 4 as well.

        >>> model = {"w": torch.tensor([[3.0, 1.0]]).repeat(1000, 1)}
        >>> merged = della({"w": torch.zeros(1000, 2)}, [model], density=0.5, epsilon=0.5, scaling_coef=1.0)["w"]
        >>> merged.unique(), (merged.mean(dim=0) - torch.tensor([3.0, 1.0])).abs().max() < 0.3
        (tensor([0., 4.]), tensor(True))

    References:
        deep2024della (drop, elect, fuse); authors' code at 0641b61.
    """
    if merge not in ("elect", "sum"):
        raise ValueError(f"merge is {merge!r}; it is one of elect, sum")
    if not finetuned:
        raise ValueError("received no fine-tuned models; at least one is needed")
    weights = [1.0] * len(finetuned) if weights is None else [float(w) for w in weights]
    if len(weights) != len(finetuned):
        raise ValueError(f"received {len(weights)} weights for {len(finetuned)} models; one weight per model is needed")
    generator = torch.Generator().manual_seed(0) if generator is None else generator

    densities, widths = one_each("density", density, len(finetuned)), one_each("epsilon", epsilon, len(finetuned))
    sparse = []
    for model, k, width in zip(finetuned, densities, widths):  # step 1: drop and rescale
        tau = task_vector(model, base)
        probabilities = keep_probabilities(tau, k, width)
        sparse.append(drop_and_rescale(tau, draw_mask(probabilities, generator), probabilities, rescale))
    if merge == "sum":
        total = linear_combination(sparse, weights)
    else:  # steps 2 and 3: elect signs and average what agrees, as TIES does with everything that is left
        total = merge_task_vectors(sparse, density=1.0, aggregate=aggregate, weights=weights, zero_sum=zero_sum)
    return to_state_dict(linear_combination([to_vector(base), total], [1.0, scaling_coef]), like=base)


def keep_probabilities(tau: Vector, density: float, epsilon: float) -> Vector:
    r"""Return $1 - p_i$ for every entry: rising with its rank by magnitude in its row, from K - eps/2 to K + eps/2.

    Args:
        tau: $\delta$, a task vector.
        density: $K$, in (0, 1].
        epsilon: $\epsilon$, full width.

    Returns:
        Probabilities, shaped as `tau`.

    Raises:
        ValueError: a density or epsilon out of range.

    Example:
        >>> keep_probabilities({"w": torch.tensor([[0.1, -3.0, 2.0]])}, 0.5, 0.5)
        {'w': tensor([[0.2500, 0.7500, 0.5000]])}
    """
    check_density(density)
    if density < 1 and not 0 <= epsilon / 2 <= min(density, 1 - density) + 1e-9:
        raise ValueError(f"epsilon is {epsilon} with density {density}; density -/+ epsilon/2 must be in [0, 1]")
    if density == 1:
        return zip_entries(torch.ones_like, tau)
    return zip_rows(lambda t: _by_rank(t, density, epsilon), tau)


def _by_rank(tensor: Tensor, density: float, epsilon: float) -> Tensor:
    if tensor.numel() == 0:
        return torch.zeros_like(tensor)
    rows = tensor.reshape(tensor.shape[0] if tensor.ndim > 1 else 1, -1)  # a vector is one row
    n = rows.shape[1]
    order = order_by_magnitude(rows)
    position = torch.arange(n, device=rows.device) / (n - 1) if n > 1 else torch.full((n,), 0.5)  # 0 for the smallest
    by_rank = (density + epsilon * (position - 0.5)).clamp(0, 1).to(rows)
    return torch.empty_like(rows).scatter_(1, order, by_rank.expand_as(rows)).reshape(tensor.shape)


def draw_mask(probabilities: Vector, generator: torch.Generator) -> Vector:
    r"""Draw what is kept, $m_i \sim \mathrm{Bernoulli}(1 - p_i)$.

    Args:
        probabilities: $1 - p_i$.
        generator: source of the masks, which are the same on any device and however the model is read.

    Returns:
        Ones where an entry is kept and zeros elsewhere.

    Example:
        >>> draw_mask({"w": torch.tensor([0.0, 1.0])}, torch.Generator().manual_seed(0))
        {'w': tensor([0., 1.])}
    """
    return bernoulli(probabilities, probabilities, generator)


def drop_and_rescale(tau: Vector, mask: Vector, probabilities: Vector, rescale: str = "probability") -> Vector:
    r"""Apply a given mask and rescale what is left: $\hat\delta_i = m_i \delta_i / (1 - p_i)$.

    Args:
        tau: $\delta$, a task vector.
        mask: $m$, ones where an entry is kept, zeros elsewhere.
        probabilities: $1 - p_i$.
        rescale: as in `della`. Default "probability": the paper.

    Returns:
        The sparse task vector.

    Raises:
        ValueError: an unknown option.

    Example:
        Divided by the probability 0.75, or multiplied by the L1 norm before over after, (3 + 1) / 3:

        >>> tau, mask, p = ({"w": torch.tensor(v)} for v in ([3.0, 1.0], [1.0, 0.0], [0.75, 0.25]))
        >>> drop_and_rescale(tau, mask, p), drop_and_rescale(tau, mask, p, "mass")
        ({'w': tensor([4., 0.])}, {'w': tensor([4., 0.])})
    """
    if rescale not in ("probability", "mass", "none"):
        raise ValueError(f"rescale is {rescale!r}; it is one of probability, mass, none")
    kept = zip_entries(torch.mul, tau, mask)
    if rescale == "probability":
        return zip_entries(lambda x, p: x / torch.where(p > 0, p, 1), kept, probabilities)
    return kept if rescale == "none" else restore_mass(tau, kept)
