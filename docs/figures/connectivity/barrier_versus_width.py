"""The barrier between two-layer networks against their width, before and after matching the neurons."""

from __future__ import annotations

from docs.figures.figure import Figure, Run
from docs.figures.toys import generator
from reference_impls.connectivity.barrier_versus_width import barrier_versus_width
from reference_impls.core import toy_zoo

FIGURE = Figure(
    title="Loss barrier between two perceptrons of one hidden layer, by its width",
    setting=(
        "Perceptrons of one hidden layer, trained on the digits for 200 steps from different initialisations; training "
        "loss on the line."
    ),
    x="width of the hidden layer",
    y="loss barrier",
    reading="Barriers fall with the width, and far faster once the neurons are matched.",
)
WIDTHS = (8, 16, 32, 64, 128)


def measure(seed: int) -> Run:
    task, pairs = toy_zoo.digits(flat=True), []
    for width in WIDTHS:
        network = toy_zoo.MLP((64, width, 10)).eval()
        options = [{"num_steps": 200, "lr": 5e-3, "generator": generator(10 * seed + i)} for i in range(2)]
        pairs.append(tuple(toy_zoo.train(network, None, task.train, **o) for o in options))
    found = barrier_versus_width(pairs, lambda model: toy_zoo.loss(network, model, task.train))
    barriers = {"as they are": found.plain.tolist(), "after matching": found.matched.tolist()}
    widths = [str(width) for width in WIDTHS]
    table = {f"Barrier at width {w}": {name: values[i] for name, values in barriers.items()} for i, w in enumerate(widths)}
    return Run({name: (widths, values) for name, values in barriers.items()}, table)
