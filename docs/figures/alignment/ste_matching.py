"""The line between networks before and after learning the permutations."""

from __future__ import annotations

from docs.figures.figure import Figure, Run, points
from docs.figures.toys import networks
from reference_impls.alignment.ste_matching import ste_matching
from reference_impls.alignment.weight_matching import weight_matching

FIGURE = Figure(
    title="Test loss on the line between two networks: permutations from weights, and learned",
    setting=(
        "Two networks of the toy zoo, trained on the digits from different initialisations. 30 steps on 300 training "
        "examples. Drawn: convolutional networks with batch normalisation."
    ),
    x="position on the line",
    y="test loss",
    reading="Descending on the loss of the midpoint finds permutations that weights alone do not.",
)


def measure(seed: int) -> Run:
    curves, table = {}, {}
    for name, architecture, width in (("perceptron, 16 units wide", "mlp", 16), ("convolutional network", "conv", None)):
        pair = networks(architecture, seed, width=width)
        learned = ste_matching(*pair.models, pair.spec, lambda model: pair.loss(model, 300), num_steps=30)  # noqa: B023
        lines = {
            "as they are": pair.line(),
            "after weight matching": pair.line(pair.moved(weight_matching(*pair.models, pair.spec))),
            "with learned permutations": pair.line(pair.moved(learned)),
        }
        curves = {label: points(line) for label, line in lines.items()}
        table[f"Barrier, {name}"] = {label: line.barrier.item() for label, line in lines.items()}
    return Run(curves, table)
