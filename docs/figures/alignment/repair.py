"""The line between networks: as they are, matched, and matched with REPAIR."""

from __future__ import annotations

from docs.figures.figure import Figure, Run, points
from docs.figures.toys import ARCHITECTURES, generator, networks
from reference_impls.alignment.repair import repair
from reference_impls.alignment.weight_matching import weight_matching

FIGURE = Figure(
    title="Test loss on the line between two networks: as they are, matched, and repaired",
    setting=(
        "Two networks of the toy zoo, trained on the digits from different initialisations, matched by their weights; "
        "statistics of 1,000 training examples. Drawn: convolutional networks with batch normalisation."
    ),
    x="position on the line",
    y="test loss",
    reading=(
        "Between convolutional networks REPAIR takes away most of what matching leaves; between transformers it does "
        "little, and the closed form harms."
    ),
)


def measure(seed: int) -> Run:
    curves, table = {}, {}
    for architecture, name in ARCHITECTURES.items():
        pair, num_points = networks(architecture, seed), 11 if architecture == "conv" else 5
        end = pair.moved(weight_matching(*pair.models, pair.spec, generator=generator(seed)))

        def closed_form(t, pair=pair, end=end):
            return repair(pair.network, pair.models[0], end, pair.spec, [pair.task.train], t=t, coefficients="closed form")

        lines = {
            "as they are": pair.line(),
            "after matching": pair.line(end),
            "and REPAIR, closed form": pair.along(closed_form, num_points),
            "and REPAIR": pair.repaired_line(end, num_points),
        }
        if architecture == "conv":
            curves = {label: points(line) for label, line in lines.items()}
        table[f"Barrier, {name}"] = {label: line.barrier.item() for label, line in lines.items()}
    return Run(curves, table)
