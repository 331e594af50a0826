"""Curves between networks as they are, and between aligned networks, after the same training."""

from __future__ import annotations

from docs.figures.figure import Figure, Run, points
from docs.figures.toys import networks
from reference_impls.connectivity.curve_finding import curve_finding
from reference_impls.connectivity.neuron_alignment_curves import neuron_alignment_curves

FIGURE = Figure(
    title="Training loss along the line, along a curve, and along a curve between aligned networks",
    setting=(
        "Two perceptrons of the toy zoo, 32 units wide, trained on the digits from different initialisations; bends "
        "trained for 60 steps at learning rate 0.05."
    ),
    x="position on the path",
    y="training loss",
    reading="After the same training the curve between aligned networks lies lower.",
)


def measure(seed: int) -> Run:
    pair = networks("mlp", seed, width=32)
    train_loss = lambda model: pair.loss(model, 1000)  # noqa: E731
    options = {"num_steps": 60, "lr": 0.05, "num_points": 21}
    activations = pair.activations(1000, written=False)
    aligned = neuron_alignment_curves(*pair.models, *activations, pair.spec, train_loss, **options)
    lines = {
        "straight line": curve_finding(*pair.models, train_loss, num_steps=0, num_points=21).losses,
        "curve": curve_finding(*pair.models, train_loss, **options).losses,
        "curve after alignment": aligned.curve.losses,
    }
    table = {
        "Barrier": {name: line.barrier.item() for name, line in lines.items()},
        "Mean loss": {name: line.losses.mean().item() for name, line in lines.items()},
    }
    return Run({name: points(line) for name, line in lines.items()}, table)
