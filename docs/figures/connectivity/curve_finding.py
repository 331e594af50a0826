"""The straight line and the two kinds of curve between independent networks."""

from __future__ import annotations

from docs.figures.figure import Figure, Run, points
from docs.figures.toys import networks
from reference_impls.connectivity.curve_finding import curve_finding

FIGURE = Figure(
    title="Training loss along the straight line and along trained curves",
    setting=(
        "Two perceptrons of the toy zoo, 32 units wide, trained on the digits from different initialisations; one bend, "
        "trained for 200 steps at learning rate 0.1."
    ),
    x="position on the path",
    y="training loss",
    reading="Where the line crosses a hill, a curve with one trained bend goes around it.",
)


def measure(seed: int) -> Run:
    pair = networks("mlp", seed, width=32)
    train_loss = lambda model: pair.loss(model, 1000)  # noqa: E731
    options = {"num_steps": 200, "lr": 0.1, "num_points": 31}
    lines = {
        "straight line": curve_finding(*pair.models, train_loss, num_steps=0, num_points=31).losses,
        "polygonal chain": curve_finding(*pair.models, train_loss, kind="chain", **options).losses,
        "Bezier curve": curve_finding(*pair.models, train_loss, kind="bezier", **options).losses,
    }
    table = {
        "Barrier": {name: line.barrier.item() for name, line in lines.items()},
        "Highest loss": {name: line.losses.max().item() for name, line in lines.items()},
    }
    return Run({name: points(line) for name, line in lines.items()}, table)
