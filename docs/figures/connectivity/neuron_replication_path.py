"""The straight line to the permuted copy of a network, and the path through replicated neurons."""

from __future__ import annotations

from docs.figures.figure import Figure, Run, points, resampled
from docs.figures.toys import generator
from reference_impls.connectivity.neuron_replication_path import neuron_replication_path
from reference_impls.core import toy_zoo
from reference_impls.core.paths import interpolate, loss_along

FIGURE = Figure(
    title="Training loss on the way from a network to its copy with the neurons in reverse order",
    setting="A perceptron of 12 hidden neurons, trained on the digits for 200 steps, with one more neuron for the path.",
    x="position on the path",
    y="training loss",
    reading="Every move of the path copies a neuron or hands over its outgoing weights, and none changes the function.",
)


def measure(seed: int) -> Run:
    task, network = toy_zoo.digits(flat=True), toy_zoo.MLP((64, 12, 10)).eval()
    model = toy_zoo.train(network, None, task.train, num_steps=200, lr=5e-3, generator=generator(seed))
    train_loss = lambda m: toy_zoo.loss(network, m, task.train)  # noqa: E731
    path = neuron_replication_path(model, train_loss, num_points=3)
    lines = {
        "straight line": loss_along(lambda t: interpolate(path.points[0], path.points[-1], t), train_loss, 21),
        "path by replication": resampled(path.losses),
    }
    table = {"Barrier": {name: line.barrier.item() for name, line in lines.items()}}
    return Run({name: points(line) for name, line in lines.items()}, table)
