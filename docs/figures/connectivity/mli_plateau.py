"""The error from the initial to the final weights, with three ways for the biases."""

from __future__ import annotations

import torch

from docs.figures.figure import Figure, Run, points
from docs.figures.toys import generator
from reference_impls.connectivity.mli_plateau import mli_plateau
from reference_impls.core import toy_zoo

FIGURE = Figure(
    title="Training error from the initial to the final weights, by the way of the biases",
    setting=(
        "A perceptron with five layers of weights, hidden layers of 64 units, trained on the digits for 300 steps from "
        "small weights and biases of zero."
    ),
    x="position from initial to final weights",
    y="training error",
    reading=(
        "The plateau at the start is mostly the last bias, which moves faster than the signal that has to pass all layers."
    ),
)


def measure(seed: int) -> Run:
    task, table = toy_zoo.digits(flat=True), {}
    for depth, sizes in {"two layers": (64, 64, 10), "five layers": (64, 64, 64, 64, 64, 10)}.items():
        network = toy_zoo.MLP(sizes).eval()
        initial = toy_zoo.initialise(network, generator(seed))
        start = {k: torch.zeros_like(v) if k.endswith("bias") else 0.3 * v for k, v in initial.items()}
        end = toy_zoo.train(network, start, task.train, num_steps=300, lr=2e-3, generator=generator(seed))
        wrong = lambda model: 1 - torch.tensor(toy_zoo.accuracy(network, model, task.train))  # noqa: B023, E731
        loss = mli_plateau(start, end, lambda model: toy_zoo.loss(network, model, task.train))  # noqa: B023
        error = mli_plateau(start, end, wrong)
        for i, way in enumerate(("linear", "homogeneous biases", "no last bias")):
            lengths = {"plateau of the loss": loss.lengths[i].item(), "plateau of the error": error.lengths[i].item()}
            table[f"{depth.capitalize()}, {way}"] = lengths
    ways = {"linear": error.linear, "homogeneous biases": error.homogeneous, "no last bias": error.unbiased}
    return Run({name: points(curve) for name, curve in ways.items()}, table)
