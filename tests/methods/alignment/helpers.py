"""What the tests of alignment methods measure with: barriers on the toy zoo and recovered permutations."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor, nn

from reference_impls.core import toy_zoo
from reference_impls.core.permutation import PermutationSpec, apply_permutation, invert, permutation_spec, random_permutations

StateDict = dict[str, Tensor]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@lru_cache
def zoo_spec(architecture: str) -> PermutationSpec:
    shape = (2, 64) if architecture in ("mlp", "residual") else (2, 1, 8, 8)
    return permutation_spec(toy_zoo.build(architecture), torch.zeros(shape))


def average(a: StateDict, b: StateDict) -> StateDict:
    return {key: (a[key] + b[key]) / 2 if a[key].is_floating_point() else a[key] for key in a}


def midpoint_barrier(
    network: nn.Module, a: StateDict, b: StateDict, split: toy_zoo.Split, merged: StateDict | None = None
) -> float:
    """Loss of the average (or of `merged`) minus the mean loss of the two models."""
    loss = lambda state_dict: toy_zoo.loss(network, state_dict, split).item()  # noqa: E731
    return loss(average(a, b) if merged is None else merged) - (loss(a) + loss(b)) / 2


def count_recovered(
    match: Callable[[StateDict, StateDict, int], dict[str, Tensor]],
    model: StateDict | None,
    spec: PermutationSpec,
    times: int = 100,
    *,
    make: Callable[[int], StateDict] | None = None,
) -> int:
    """How often `match(model, permuted model, seed)` finds the inverse of a random permutation, all layers right."""
    count = 0
    for seed in range(times):
        original = model if make is None else make(seed)
        drawn = random_permutations(spec, generator(seed))
        found = match(original, apply_permutation(spec, drawn, original), seed)
        count += all(torch.equal(found[name], wanted) for name, wanted in invert(drawn).items())
    return count
