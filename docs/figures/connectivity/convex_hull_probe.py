"""Losses at random points of the convex hull of runs that share their start, and of runs that do not."""

from __future__ import annotations

from docs.figures.figure import Figure, Run
from docs.figures.toys import generator
from reference_impls.connectivity.convex_hull_probe import convex_hull_probe
from reference_impls.core import toy_zoo

FIGURE = Figure(
    title="Test loss at random points of the convex hull of four networks, sorted",
    setting=(
        "Perceptrons of 24 units, trained on the digits for 200 steps in four orders, from one network that was trained "
        "for 100 steps (shared) or from one initialisation (apart); 60 points of the hull."
    ),
    x="share of the points with a lower loss",
    y="test loss",
    reading="Runs that part late span a hull of low loss; runs that part at the initialisation do not.",
)


def measure(seed: int) -> Run:
    task, network = toy_zoo.digits(flat=True), toy_zoo.build("mlp", 24)

    def train(model, steps, seed):
        options = {"num_steps": steps, "lr": 2e-2, "batch_size": 16, "generator": generator(seed)}
        return toy_zoo.train(network, model, task.train, **options)

    start = toy_zoo.initialise(network, generator(seed))
    curves, table = {}, {"Barrier inside": {}, "Mean test loss of the networks": {}, "Test loss in the middle": {}}
    for name, origin in {"apart from the initialisation": start, "first third shared": train(start, 100, seed)}.items():
        ends = [train(origin, 200, 100 * seed + i) for i in range(4)]
        hull = convex_hull_probe(ends, lambda model: toy_zoo.loss(network, model, task.test), num_points=60)
        losses = hull.losses.sort().values.tolist()
        curves[name] = [round(i / (len(losses) - 1), 4) for i in range(len(losses))], losses
        table["Barrier inside"][name] = hull.barrier.item()
        table["Mean test loss of the networks"][name] = hull.end_losses.mean().item()
        table["Test loss in the middle"][name] = hull.center_loss.item()
    return Run(curves, table)
