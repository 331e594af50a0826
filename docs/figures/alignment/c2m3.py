"""The lines between three networks: as they are, matched to the first, and in the universe."""

from __future__ import annotations

from itertools import combinations

import torch

from docs.figures.figure import Figure, Run, points
from docs.figures.toys import Networks, networks
from reference_impls.alignment.c2m3 import universe_permutations
from reference_impls.alignment.weight_matching import weight_matching
from reference_impls.core.paths import LossCurve, convex_combination, interpolate
from reference_impls.core.permutation import apply_permutation

FIGURE = Figure(
    title="Test loss on the lines between three networks, mean of the three pairs",
    setting="Three residual networks of the toy zoo, trained on the digits from different initialisations.",
    x="position on the line",
    y="test loss",
    reading="Matched to the first, two networks are not matched to each other; in the universe all three are.",
)


def measure(seed: int) -> Run:
    family = networks("residual", seed, count=3)
    ways = {
        "as they are": family.models,
        "matched to the first": to_first(family),
        "in the universe": [
            apply_permutation(family.spec, p, m) for p, m in zip(universe_permutations(family.models, family.spec), family.models)
        ],
    }
    lines = {name: mean_line(family, models) for name, models in ways.items()}
    table = {
        "Barrier, mean of the pairs": {name: line.barrier.item() for name, line in lines.items()},
        "Test loss of the average of all": {
            name: family.loss(convex_combination(models, [1 / 3] * 3)).item() for name, models in ways.items()
        },
    }
    return Run({name: points(line) for name, line in lines.items()}, table)


def to_first(family: Networks) -> list:
    first, *others = family.models
    return [first, *(apply_permutation(family.spec, weight_matching(first, m, family.spec), m) for m in others)]


def mean_line(family: Networks, models) -> LossCurve:
    lines = [family.along(lambda t, a=a, b=b: interpolate(a, b, t)) for a, b in combinations(models, 2)]
    return LossCurve(lines[0].ts, torch.stack([line.losses for line in lines]).mean(dim=0))
