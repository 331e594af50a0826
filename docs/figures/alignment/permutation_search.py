"""The line between networks before and after a search for a better order of the units."""

from __future__ import annotations

from docs.figures.figure import Figure, Run, points
from docs.figures.toys import networks
from reference_impls.alignment.permutation_search import permutation_search
from reference_impls.alignment.weight_matching import weight_matching

FIGURE = Figure(
    title="Test loss on the line between two perceptrons, before and after a search for the order of the units",
    setting=(
        "Perceptrons of the toy zoo, trained on the digits from different initialisations; 600 exchanges, judged on 200 "
        "training examples. Drawn: 256 units wide."
    ),
    x="position on the line",
    y="test loss",
    reading=(
        "Blind search lowers the hill at every width; matching the weights does better, the more so the wider the "
        "networks are."
    ),
)


def measure(seed: int) -> Run:
    curves, table = {}, {}
    for width in (16, 64, 256):
        pair = networks("mlp", seed, width=width)
        found = permutation_search(*pair.models, pair.spec, lambda model: pair.loss(model, 200), num_steps=600)  # noqa: B023
        lines = {
            "as they are": pair.line(),
            "after the search": pair.line(pair.moved(found.permutations)),
            "after weight matching": pair.line(pair.moved(weight_matching(*pair.models, pair.spec))),
        }
        curves = {label: points(line) for label, line in lines.items()}
        table[f"Barrier, {width} units wide"] = {label: line.barrier.item() for label, line in lines.items()}
    return Run(curves, table)
