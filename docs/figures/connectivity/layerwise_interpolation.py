"""The loss from the initial to the final weights, of the whole network and of one layer at a time."""

from __future__ import annotations

from docs.figures.figure import Figure, Run, points
from docs.figures.toys import generator
from reference_impls.connectivity.layerwise_interpolation import layerwise_interpolation
from reference_impls.core import toy_zoo

FIGURE = Figure(
    title="Training loss from the initial to the final weights: the whole network, and one layer at a time",
    setting=(
        "A perceptron with two hidden layers of 64 units, trained on the digits for 300 steps from its initialisation, "
        "and once from the same weights times 3."
    ),
    x="position from initial to final weights",
    y="training loss",
    reading="A larger start takes away the rise above the straight line and hardly changes the accuracy.",
)


def measure(seed: int) -> Run:
    task, network = toy_zoo.digits(flat=True), toy_zoo.MLP((64, 64, 64, 10)).eval()
    initial = toy_zoo.initialise(network, generator(seed))

    def run(factor):
        start = {key: factor * tensor for key, tensor in initial.items()}
        end = toy_zoo.train(network, start, task.train, num_steps=300, lr=2e-3, generator=generator(seed))
        loss_fn = lambda model: toy_zoo.loss(network, model, task.train)  # noqa: E731
        return layerwise_interpolation(start, end, loss_fn, num_points=21), toy_zoo.accuracy(network, end, task.test)

    (plain, accuracy), (large, accuracy_large) = run(1.0), run(3.0)
    curves = {"whole network": plain.whole}
    curves |= {f"layer {i + 1} alone": curve for i, curve in enumerate(plain.layers.values())}
    table = {
        "Rise above the straight line": {
            "start as it is": plain.whole.barrier.item(),
            "start times 3": large.whole.barrier.item(),
        },
        "Test accuracy at the end": {"start as it is": accuracy, "start times 3": accuracy_large},
    }
    return Run({name: points(curve) for name, curve in curves.items()}, table)
