r"""Fisher merging (matena2022fisher).

A plain average treats every parameter of every model as equally certain. Fisher merging lets each model speak loudest
about the parameters that its own predictions depend on: it is the most probable parameter vector if each model's
posterior is a Gaussian around its weights whose precision is the diagonal Fisher information.

Notation: theta_i the models, F_i their diagonal Fisher information, lambda_i the weights of the models, j one
parameter.

Departures: none. The paper keeps the value of a target model where all Fisher information is near zero; the target is
the first model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from reference_impls.core.state_dict import StateDict, Vector, check_same_structure, norm, to_state_dict, to_vector


def fisher_merging(
    models: Sequence[StateDict],
    fishers: Sequence[StateDict],
    *,
    weights: Sequence[float] | None = None,
    normalize: Literal["none", "model", "tensor"] = "none",
    floor: float = 1e-6,
    floor_on: Literal["first", "all", "add"] = "first",
) -> StateDict:
    r"""Average models with every parameter weighted by its Fisher information.

    $$
    \theta^{(j)} = \frac{\sum_i \lambda_i\,F_i^{(j)}\,\theta_i^{(j)}}{\sum_i \lambda_i\,F_i^{(j)}}
    $$

    Args:
        models: $\theta_1 \dots \theta_n$, n >= 1, of one architecture; the first is the target model.
        fishers: $F_1 \dots F_n$, for each model the non-negative diagonal Fisher information by parameter name, as
            `core.statistics.diagonal_fisher` returns it; what has none (buffers) is averaged with the weights alone.
        weights: $\lambda_1 \dots \lambda_n$, positive; only their ratios count. The paper searches them on held-out
            data. Default None: all equal.
        normalize: "model" divides each model's Fisher information by its Euclidean norm (the authors' code), "tensor"
            each tensor's by its own (an option of the RegMean authors' code). Default "none": the equation.
        floor: smallest Fisher information, >= 0, in the unit of F. Default 1e-6: the authors' code.
        floor_on: "first" raises only the target model's values to the floor, so that it decides where nobody knows
            (the paper); "all" raises everyone's; "add" adds the floor to everyone's (MergeLM, FusionBench). Default
            "first": the authors' code.

    Returns:
        A new state dict, structured as the first model.

    Raises:
        ValueError: no models, models of another structure, another number of Fishers or weights, a missing tensor,
            negative Fisher information, a weight that is not positive, an unknown option.

    Example:
        First entry: (3 * 0 + 1 * 4) / (3 + 1) = 1. Second entry: nobody knows, and the first model's value stays.

        >>> models = [{"w": torch.tensor([0.0, 5.0])}, {"w": torch.tensor([4.0, 7.0])}]
        >>> fishers = [{"w": torch.tensor([3.0, 0.0])}, {"w": torch.tensor([1.0, 0.0])}]
        >>> fisher_merging(models, fishers)
        {'w': tensor([1., 5.])}

    References:
        matena2022fisher, the equation of Fisher merging; the authors' code for the floor.
    """
    check_same_structure(*models)
    _check(models, fishers, weights, floor)
    for name, value, allowed in (
        ("normalize", normalize, ("none", "model", "tensor")),
        ("floor_on", floor_on, ("first", "all", "add")),
    ):
        if value not in allowed:
            raise ValueError(f"{name} is {value!r}; it is one of {', '.join(allowed)}")
    thetas = [to_vector(model) for model in models]
    lambdas = [1.0] * len(models) if weights is None else [float(w) for w in weights]
    precisions = [
        _precision(i, {key: fisher[key] for key in thetas[0] if key in fisher}, lambdas[i], normalize, floor, floor_on)
        for i, fisher in enumerate(fishers)
    ]

    merged: Vector = {}
    for key, first in thetas[0].items():
        ones = torch.ones_like(first, dtype=torch.float64)
        coefficients = [p[key] if key in p else w * ones for p, w in zip(precisions, lambdas)]
        total = sum(coefficients)
        mean = sum(c * theta[key] for c, theta in zip(coefficients, thetas)) / torch.where(total > 0, total, 1)
        merged[key] = torch.where(total > 0, mean, first.double())  # a floor of 0: the target where nobody knows
    return to_state_dict(merged, like=models[0])


def _precision(i: int, fisher: Vector, weight: float, normalize: str, floor: float, floor_on: str) -> Vector:
    """lambda_i F_i in float64, floored, and divided by its norm where asked."""
    fisher = {key: tensor.double() for key, tensor in fisher.items()}
    if floor_on == "add":
        floored = {key: tensor + floor for key, tensor in fisher.items()}
    elif floor_on == "all" or i == 0:
        floored = {key: tensor.clamp(min=floor) for key, tensor in fisher.items()}
    else:
        floored = fisher
    whole = norm(fisher)
    scale = {"none": lambda key: 1.0, "model": lambda key: whole, "tensor": lambda key: fisher[key].norm()}[normalize]
    return {key: weight * tensor / (scale(key) or 1.0) for key, tensor in floored.items()}


def _check(
    models: Sequence[StateDict], fishers: Sequence[StateDict], weights: Sequence[float] | None, floor: float
) -> None:
    if len(fishers) != len(models) or (weights is not None and len(weights) != len(models)):
        given = f"{len(fishers)} Fishers" + ("" if weights is None else f" and {len(weights)} weights")
        raise ValueError(f"received {len(models)} models, {given}; one of each per model is needed")
    if weights is not None and min(weights) <= 0:
        raise ValueError(f"weights are {list(weights)}; they need to be positive")
    if floor < 0:
        raise ValueError(f"floor is {floor}; it is at least 0")
    for number, fisher in enumerate(fishers, start=1):
        for key, tensor in models[0].items():
            if (key in fisher) != (key in fishers[0]):
                raise ValueError(f"Fisher {number} and Fisher 1 do not cover the same tensors: {key!r}")
            if key in fisher and fisher[key].shape != tensor.shape:
                shapes = tuple(tensor.shape), tuple(fisher[key].shape)
                raise ValueError(f"{key!r} has shape {shapes[0]} in the models and {shapes[1]} in Fisher {number}")
            if key in fisher and (fisher[key] < 0).any():
                raise ValueError(f"{key!r} of Fisher {number} has negative values; it is a mean of squares")
