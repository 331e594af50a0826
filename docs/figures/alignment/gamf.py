"""The lines between three networks: as they are, matched to the first, and by graduated assignment."""

from __future__ import annotations

from docs.figures.alignment.c2m3 import mean_line, to_first
from docs.figures.figure import Figure, Run, points
from docs.figures.toys import networks
from reference_impls.alignment.gamf import graduated_assignment
from reference_impls.core.paths import convex_combination
from reference_impls.core.permutation import apply_permutation

FIGURE = Figure(
    title="Test loss on the lines between three networks, mean of the three pairs",
    setting="Three residual networks of the toy zoo, 32 units wide, trained on the digits from different initialisations.",
    x="position on the line",
    y="test loss",
    reading=(
        "Matched to the first, two networks are not matched to each other; graduated assignment matches all three at once."
    ),
)


def measure(seed: int) -> Run:
    family = networks("residual", seed, count=3, width=32)
    permutations = graduated_assignment(family.models, family.spec)
    ways = {
        "as they are": family.models,
        "matched to the first": to_first(family),
        "by graduated assignment": [apply_permutation(family.spec, p, m) for p, m in zip(permutations, family.models)],
    }
    lines = {name: mean_line(family, models) for name, models in ways.items()}
    table = {
        "Barrier, mean of the pairs": {name: line.barrier.item() for name, line in lines.items()},
        "Test loss of the average of all": {
            name: family.loss(convex_combination(models, [1 / 3] * 3)).item() for name, models in ways.items()
        },
    }
    return Run({name: points(line) for name, line in lines.items()}, table)
