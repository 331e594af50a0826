"""The constructed path between networks trained with and without dropout."""

from __future__ import annotations

import torch
from torch import nn

from docs.figures.figure import Figure, Run, points, resampled
from docs.figures.toys import generator
from reference_impls.connectivity.dropout_stable_path import dropout_stable_path
from reference_impls.core import toy_zoo
from reference_impls.core.paths import interpolate, loss_along

FIGURE = Figure(
    title="Training loss along the straight line and along the constructed path",
    setting=(
        "Pairs of perceptrons with two hidden layers of 128 units, trained on the digits for 300 steps from different "
        "initialisations, with and without dropout of one half."
    ),
    x="position on the path",
    y="training loss",
    reading=(
        "Networks that bear the loss of half of their units are joined by a path that is written down, not trained; "
        "others less so."
    ),
)


class DropoutMLP(toy_zoo.MLP):
    def forward(self, x):
        for layer in self.layers[:-1]:
            x = nn.functional.dropout(torch.relu(layer(x)), 0.5, self.training)
        return self.layers[-1](x)


def measure(seed: int) -> Run:
    task, sizes = toy_zoo.digits(flat=True), (64, 128, 128, 10)
    plain = toy_zoo.MLP(sizes).eval()
    train_loss = lambda model: toy_zoo.loss(plain, model, task.train)  # noqa: E731

    def trained(network):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            generators = [generator(10 * seed + i) for i in range(2)]
            return [toy_zoo.train(network, None, task.train, num_steps=300, lr=3e-3, generator=g) for g in generators]

    stable, unstable = trained(DropoutMLP(sizes)), trained(plain)
    line = loss_along(lambda t: interpolate(*stable, t), train_loss, 21)
    paths = {"path, trained with dropout": stable, "path, trained without": unstable}
    found = {name: dropout_stable_path(*models, train_loss, num_points=5) for name, models in paths.items()}
    lines = {"straight line, with dropout": line, **{name: path.losses for name, path in found.items()}}
    table = {
        "Barrier": {name: curve.barrier.item() for name, curve in lines.items()},
        "Highest loss": {name: curve.losses.max().item() for name, curve in lines.items()},
    }
    return Run({name: points(resampled(curve, 81)) for name, curve in lines.items()}, table)
