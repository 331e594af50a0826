r"""DARE (yu2024dare).

Most of what fine-tuning changes is redundant: drop each entry of a task vector at random, with high probability, and
rescale the survivors so that the expected change stays the same. What is left of several models collides less, and any
merging method can follow.

Notation: delta_t = theta_t - theta_0 the task vector of model t, p the drop rate, K = 1 - p the density, m_t the random
mask of what is kept, lambda the scaling coefficient.

Departures: the probabilities of the masks are counted in steps of 1/65536. The paper says what to drop and leaves the merge
open; `merge` offers the three it is combined with most.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from reference_impls.core.blocks import again, entrywise, totals
from reference_impls.core.sampling import bernoulli
from reference_impls.core.selection import check_density, one_each
from reference_impls.core.state_dict import StateDict, Vector, linear_combination, task_vector, to_state_dict, to_vector
from reference_impls.core.state_dict import zip_entries
from reference_impls.task_vectors.ties_merging import merge_task_vectors


def dare(
    base: StateDict,
    finetuned: Sequence[StateDict],
    *,
    density: float | Sequence[float] = 0.1,
    merge: Literal["task_arithmetic", "average", "ties"] = "task_arithmetic",
    scaling_coef: float = 1.0,
    ties_density: float = 0.2,
    ties_aggregate: Literal["mean", "sum"] = "mean",
    zero_sum: Literal["majority", "plus"] = "majority",
    rescale: Literal["density", "mass", "none"] = "density",
    weights: Sequence[float] | None = None,
    generator: torch.Generator | None = None,
) -> StateDict:
    r"""Drop random entries of each task vector, rescale the rest, and merge.

    $$
    m_t \sim \mathrm{Bernoulli}(K), \qquad \hat\delta_t = \frac{m_t \odot \delta_t}{K},
    \qquad \mathbb{E}\,\hat\delta_t = \delta_t, \qquad \theta = \theta_0 + \lambda \sum_t \hat\delta_t
    $$

    Args:
        base: $\theta_0$, the pre-trained model that all the others were fine-tuned from.
        finetuned: $\theta_1 \dots \theta_n$, n >= 1.
        density: $K = 1 - p$, probability with which an entry is kept, in (0, 1], one for all models or one each.
            Default 0.1: the drop rate of 90 percent that the abstract names.
        merge: what follows on the models $\theta_0 + \hat\delta_t$: "task_arithmetic" (the sum above), "average" (the
            mean of the models), "ties" (trim, elect, disjoint mean). Default "task_arithmetic": the plain sum.
        scaling_coef: $\lambda$; "average" does without. Default 1.0: the sum itself.
        ties_density: fraction that TIES keeps after the drop, in (0, 1]. Default 0.2, as in TIES.
        ties_aggregate: what TIES makes of the values that agree, their "mean" or their "sum" (mergekit). Default "mean", as in
            TIES.
        zero_sum: which sign TIES elects where values add up to zero, "majority" or "plus" (mergekit).
            Default "majority": as in TIES.
        rescale: "density" divides by K (the paper); "mass" multiplies each tensor by its L1 norm before over after the
            drop (mergekit); "none" leaves the survivors as they are. Default "density": Sec. 3.1, Eq. (1).
        weights: one factor per model, applied to what is left. Default None: all 1.
        generator: source of the masks. Default None: a new one with seed 0.

    Returns:
        A new state dict, structured as `base`.

    Raises:
        ValueError: no models, models of another structure, a density outside (0, 1], an unknown option, another number of
            weights than of models.

    Example:
        With density 0.5 an entry is dropped or doubled: 3 becomes 0 or 6.

        >>> merged = dare({"w": torch.zeros(1000)}, [{"w": torch.full((1000,), 3.0)}], density=0.5)["w"]
        >>> sorted(set(merged.tolist())), abs(merged.mean().item() - 3) < 0.3
        ([0.0, 6.0], True)

    References:
        yu2024dare, Sec. 3.1 (drop and rescale) and Sec. 3.2 (merging what is left).
    """
    densities = one_each("density", density, len(finetuned))
    for k in densities:
        check_density(k)
    if merge not in ("task_arithmetic", "average", "ties"):
        raise ValueError(f"merge is {merge!r}; it is one of task_arithmetic, average, ties")
    if not finetuned:
        raise ValueError("received no fine-tuned models; at least one is needed")
    generator = torch.Generator().manual_seed(0) if generator is None else generator

    weights = [1.0] * len(finetuned) if weights is None else [float(w) for w in weights]

    task_vectors = [task_vector(model, base) for model in finetuned]
    sparse = [drop_and_rescale(tau, random_mask(tau, k, generator), k, rescale) for tau, k in zip(task_vectors, densities)]
    if merge == "ties":
        total = merge_task_vectors(sparse, density=ties_density, aggregate=ties_aggregate, weights=weights, zero_sum=zero_sum)
    else:
        total = linear_combination(sparse, weights)
    coefficient = 1 / len(sparse) if merge == "average" else scaling_coef
    return to_state_dict(linear_combination([to_vector(base), total], [1.0, coefficient]), like=base)


def random_mask(tau: Vector, density: float, generator: torch.Generator) -> Vector:
    r"""Draw the mask of what is kept, $m \sim \mathrm{Bernoulli}(K)$ for every entry on its own.

    Args:
        tau: a task vector; only its names and shapes matter.
        density: $K$, in (0, 1].
        generator: source of the masks, which are the same on any device and however the model is read.

    Returns:
        Ones where an entry is kept and zeros elsewhere.

    Example:
        >>> random_mask({"w": torch.zeros(2)}, 1.0, torch.Generator())
        {'w': tensor([1., 1.])}
    """
    return bernoulli(tau, float(density), generator)


def drop_and_rescale(tau: Vector, mask: Vector, density: float, rescale: str = "density") -> Vector:
    r"""Apply a given mask to a task vector and rescale what is left: $\hat\delta = m \odot \delta / K$.

    Args:
        tau: $\delta$, a task vector.
        mask: $m$, ones where an entry is kept, zeros elsewhere.
        density: $K$, in (0, 1].
        rescale: as in `dare`. Default "density": the paper.

    Returns:
        The sparse task vector.

    Raises:
        ValueError: an unknown option.

    Example:
        Divided by the density 0.5, or multiplied by the L1 norm before over after, (2 + 3) / 2:

        >>> tau, mask = {"w": torch.tensor([2.0, 3.0])}, {"w": torch.tensor([1.0, 0.0])}
        >>> drop_and_rescale(tau, mask, 0.5)
        {'w': tensor([4., 0.])}
        >>> drop_and_rescale(tau, mask, 0.5, rescale="mass")
        {'w': tensor([5., 0.])}
    """
    if rescale not in ("density", "mass", "none"):
        raise ValueError(f"rescale is {rescale!r}; it is one of density, mass, none")
    kept = zip_entries(torch.mul, tau, mask)
    if rescale == "density":
        return zip_entries(lambda x: x / density, kept)
    if rescale == "none":
        return kept
    return restore_mass(tau, kept)


def restore_mass(tau: Vector, kept: Vector) -> Vector:
    r"""Multiply each tensor of what is kept by the factor that gives it the L1 norm it had in the task vector.

    Example:
        >>> restore_mass({"w": torch.tensor([2.0, -3.0])}, {"w": torch.tensor([2.0, 0.0])})
        {'w': tensor([5., 0.])}
    """
    out = {}
    for key, tensor in kept.items():
        before, after = totals(entrywise(torch.abs, tau[key]), entrywise(torch.abs, again(tensor)))
        out |= linear_combination([{key: tensor}], [before / (after or 1.0)])
    return out
