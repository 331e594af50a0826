"""The line between networks after an alignment that was learned on others."""

from __future__ import annotations

from docs.figures.figure import Figure, Run, points
from docs.figures.toys import networks
from reference_impls.alignment.deep_align import deep_align
from reference_impls.alignment.weight_matching import weight_matching

FIGURE = Figure(
    title="Test loss on the line between two perceptrons: matched, and by a learned alignment",
    setting=(
        "Perceptrons of the toy zoo, 32 units wide, trained on the digits from different initialisations; learned in 200 "
        "steps on eight others."
    ),
    x="position on the line",
    y="test loss",
    reading="What was learned on other networks aligns these two better than matching their weights.",
)


def measure(seed: int) -> Run:
    pair = networks("mlp", seed, width=32)
    others = networks("mlp", 7, count=8, width=32).models
    lines = {
        "as they are": pair.line(),
        "after weight matching": pair.line(pair.moved(weight_matching(*pair.models, pair.spec))),
        "Deep-Align, untrained": pair.line(pair.moved(deep_align(*pair.models, pair.spec, others, num_steps=0))),
        "Deep-Align": pair.line(pair.moved(deep_align(*pair.models, pair.spec, others))),
    }
    table = {"Barrier": {name: line.barrier.item() for name, line in lines.items()}}
    return Run({name: points(line) for name, line in lines.items()}, table)
