r"""DARE (yu2024dare).

Most of what fine-tuning changes is redundant: drop each entry of a task vector at random, with high probability, and
rescale the survivors so that the expected change stays the same. What is left of several models collides less, and any
merging method can follow.

Notation: delta_t = theta_t - theta_0 the task vector of model t, p the drop rate, K = 1 - p the density, m_t the random
mask of what is kept, lambda the scaling coefficient.

Departures: none. The paper says what to drop and leaves the merge open; `merge` offers the three it is combined with
most.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from reference_impls.core.selection import check_density
from reference_impls.core.state_dict import StateDict, Vector, linear_combination, task_vector, to_state_dict, to_vector
from reference_impls.core.state_dict import zip_map
from reference_impls.task_vectors.ties_merging import ties_merging


def dare(
    base: StateDict,
    finetuned: Sequence[StateDict],
    *,
    density: float = 0.1,
    merge: Literal["task_arithmetic", "average", "ties"] = "task_arithmetic",
    scaling_coef: float = 1.0,
    ties_density: float = 0.2,
    rescale: Literal["density", "mass", "none"] = "density",
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
        density: $K = 1 - p$, probability with which an entry is kept, in (0, 1]. Default 0.1: the drop rate of 90
            percent that the abstract names.
        merge: what follows on the models $\theta_0 + \hat\delta_t$: "task_arithmetic" (the sum above), "average" (the
            mean of the models), "ties" (trim, elect, disjoint mean). Default "task_arithmetic": the plain sum.
        scaling_coef: $\lambda$; "average" does without. Default 1.0: the sum itself.
        ties_density: fraction that TIES keeps after the drop, in (0, 1]. Default 0.2, as in TIES.
        rescale: "density" divides by K (the paper); "mass" multiplies each tensor by its L1 norm before over after the
            drop (mergekit); "none" leaves the survivors as they are. Default "density": Sec. 3.1, Eq. (1).
        generator: source of the masks. Default None: a new one with seed 0.

    Returns:
        A new state dict, structured as `base`.

    Raises:
        ValueError: no models, models of another structure, a density outside (0, 1], an unknown option.

    Example:
        With density 0.5 an entry is dropped or doubled: 3 becomes 0 or 6.

        >>> merged = dare({"w": torch.zeros(1000)}, [{"w": torch.full((1000,), 3.0)}], density=0.5)["w"]
        >>> sorted(set(merged.tolist())), abs(merged.mean().item() - 3) < 0.3
        ([0.0, 6.0], True)

    References:
        yu2024dare, Sec. 3.1 (drop and rescale) and Sec. 3.2 (merging what is left).
    """
    check_density(density)
    if merge not in ("task_arithmetic", "average", "ties"):
        raise ValueError(f"merge is {merge!r}; it is one of task_arithmetic, average, ties")
    if not finetuned:
        raise ValueError("received no fine-tuned models; at least one is needed")
    generator = torch.Generator().manual_seed(0) if generator is None else generator

    task_vectors = [task_vector(model, base) for model in finetuned]
    sparse = [drop_and_rescale(tau, random_mask(tau, density, generator), density, rescale) for tau in task_vectors]
    theta_0 = to_vector(base)
    if merge == "ties":
        models = [linear_combination([theta_0, tau], [1.0, 1.0]) for tau in sparse]
        theta = ties_merging(theta_0, models, density=ties_density, scaling_coef=scaling_coef)
    else:
        coefficient = scaling_coef if merge == "task_arithmetic" else 1 / len(sparse)
        total = linear_combination(sparse, [1.0] * len(sparse))
        theta = linear_combination([theta_0, total], [1.0, coefficient])
    return to_state_dict(theta, like=base)


def random_mask(tau: Vector, density: float, generator: torch.Generator) -> Vector:
    r"""Draw the mask of what is kept, $m \sim \mathrm{Bernoulli}(K)$ for every entry on its own.

    Args:
        tau: a task vector; only its names and shapes matter.
        density: $K$, in (0, 1].
        generator: source of the numbers; they are drawn on its device and then moved, so that a mask is the same
            anywhere.

    Returns:
        Ones where an entry is kept and zeros elsewhere.

    Example:
        >>> random_mask({"w": torch.zeros(2)}, 1.0, torch.Generator())
        {'w': tensor([1., 1.])}
    """
    draw = lambda t: torch.rand(t.shape, generator=generator, device=generator.device)  # noqa: E731
    return {key: (draw(tensor) < density).to(tensor.device, tensor.dtype) for key, tensor in tau.items()}


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

        >>> tau, mask = {"w": torch.tensor([2.0, -3.0])}, {"w": torch.tensor([1.0, 0.0])}
        >>> drop_and_rescale(tau, mask, 0.5)
        {'w': tensor([4., 0.])}
        >>> drop_and_rescale(tau, mask, 0.5, rescale="mass")
        {'w': tensor([5., 0.])}
    """
    if rescale not in ("density", "mass", "none"):
        raise ValueError(f"rescale is {rescale!r}; it is one of density, mass, none")
    kept = zip_map(lambda x, m: torch.where(m != 0, x, 0), tau, mask)
    if rescale == "density":
        return {key: tensor / density for key, tensor in kept.items()}
    if rescale == "none":
        return kept
    mass = lambda x: x.abs().sum()  # noqa: E731
    return zip_map(lambda x, y: y * (mass(x) / torch.where(mass(y) > 0, mass(y), 1)), tau, kept)
