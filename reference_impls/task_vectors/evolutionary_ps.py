r"""Evolutionary merging in parameter space (akiba2024evolutionary).

How much of which model belongs into which layer of a merge is not obvious to people, but it can be searched for. The
models are merged by TIES with DARE, with a weight and a density for every model and group of layers, and an evolution
strategy (CMA-ES) looks for the weights and densities whose merge does best on a small set of examples. No gradients
are taken; every candidate is merged and tried.

Notation: theta_0 the base model, tau_t the task vectors, g a group of layers, w_(t,g) in [0, 1] the weight and
K_(t,g) in [0, 1] the density of model t in group g, n the number of all these, F the fitness of a merged model.

Departures: as in mergekit's dare_ties there is no trim, and what agrees in sign is summed. The random masks of DARE
are drawn from one seed for all candidates, so that the fitness of a candidate is a fixed number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reference_impls.core.evolution import cma_es
from reference_impls.core.state_dict import StateDict, Vector, linear_combination, task_vector, to_state_dict, to_vector
from reference_impls.task_vectors.dare import drop_and_rescale, random_mask
from reference_impls.task_vectors.ties_merging import ties_merging


@dataclass(frozen=True)
class EvolvedModel:
    """The best merge found.

    Attributes:
        model: the merged model.
        fitness: its fitness.
        groups: the groups of layers, by name.
        weights: w, (models, groups).
        densities: K, (models, groups).
    """

    model: StateDict
    fitness: float
    groups: tuple[str, ...]
    weights: Tensor
    densities: Tensor


def evolutionary_ps(
    base: StateDict,
    finetuned: Sequence[StateDict],
    fitness: Callable[[StateDict], float],
    *,
    group: Callable[[str], str] = lambda name: name.rpartition(".")[0],
    num_evaluations: int = 1000,
    sigma: float = 1 / 6,
    population: int | None = None,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> EvolvedModel:
    r"""Search the weights and densities of a DARE-TIES merge, layer by layer, for the fittest model.

    $$
    \max_{w, K}\ F\Big(\theta_0 + \operatorname{TIES}_{t}\big(w_{t,g}\, \mathrm{DARE}_{K_{t,g}}(\tau_t^g)\big)_g\Big), \qquad
    (w, K) \sim \mathcal N(m, \sigma^2 C) \ \text{in}\ [0, 1]^{n}
    $$

    Args:
        base: $\theta_0$.
        finetuned: $\theta_1 \dots \theta_n$, n >= 1.
        fitness: $F$, a state dict to a number, higher is better (accuracy on a few labeled examples).
        group: gives the name of a tensor's group; equal names share weights and densities. Default: the layer, that is the
            tensor's name without its last part. `lambda name: ""` has one group for the whole model.
        num_evaluations: merged models tried. Default 1000: the paper's trials.
        sigma: first step size of CMA-ES; all parameters start at 0.5. Default 1/6: the paper's experiments.
        population: candidates a generation. Default None: 4 + floor(3 ln n), as in the
            paper's experiments.
        generator: source of the candidates. Default None: a new one with seed 0.
        progress: called with the number of evaluations and the best fitness so far.

    Returns:
        An `EvolvedModel`: `model` is the merge, `weights` and `densities` the recipe.

    Raises:
        ValueError: no models, models of another structure, fewer evaluations than one generation needs.

    Example:
        The fitness wants 0.25; one model has moved by 1, and its weight is found.

        >>> found = evolutionary_ps({"w": torch.zeros(1)}, [{"w": torch.ones(1)}], lambda m: -abs(float(m["w"]) - 0.25),
        ...                         num_evaluations=200)
        >>> abs(float(found.model["w"]) - 0.25) < 0.01
        True

    References:
        akiba2024evolutionary, merging in the parameter space and the settings of its experiments.
    """
    if not finetuned:
        raise ValueError("received no fine-tuned models; at least one is needed")
    task_vectors = [task_vector(model, base) for model in finetuned]
    groups = tuple(dict.fromkeys(group(name) for name in task_vectors[0]))
    shape = (2, len(finetuned), len(groups))
    dimensions = 2 * len(finetuned) * len(groups)

    def merge(point: Tensor) -> StateDict:
        weights, densities = point.reshape(shape).tolist()
        return _dare_ties(base, task_vectors, [groups.index(group(name)) for name in task_vectors[0]], weights, densities)

    best, value = cma_es(
        lambda point: -float(fitness(merge(point))),
        torch.full((dimensions,), 0.5),
        sigma=sigma, low=0.0, high=1.0, population=population, num_evaluations=num_evaluations, generator=generator,
        progress=None if progress is None else (lambda done, lowest: progress(done, -lowest)),
    )  # fmt: skip
    if value == float("inf"):
        raise ValueError(f"num_evaluations is {num_evaluations}; one generation for {dimensions} parameters needs more")
    weights, densities = best.reshape(shape)
    return EvolvedModel(merge(best), -value, groups, weights, densities)


def _dare_ties(
    base: StateDict, task_vectors: Sequence[Vector], group_of: Sequence[int],
    weights: list[list[float]], densities: list[list[float]],
) -> StateDict:  # fmt: skip
    """DARE with the density of each layer, the weight of each layer, and TIES without a trim."""
    sparse = []
    for t, tau in enumerate(task_vectors):
        generator = torch.Generator().manual_seed(t)  # the same numbers for every candidate
        out = {}
        for g, (name, tensor) in zip(group_of, tau.items()):
            density = max(densities[t][g], 1e-3)
            one = {name: tensor}
            kept = drop_and_rescale(one, random_mask(one, density, generator), density)[name]
            out[name] = weights[t][g] * kept
        sparse.append(out)
    zero = linear_combination(sparse[:1], [0.0])
    merged = dict(ties_merging(zero, sparse, density=1.0, aggregate="sum"))
    return to_state_dict(linear_combination([to_vector(base), merged], [1.0, 1.0]), like=base)
