"""Losses at random points of a simplicial complex between networks, and of their convex hull."""

from __future__ import annotations

from docs.figures.figure import Figure, Run
from docs.figures.toys import generator, networks
from reference_impls.connectivity.convex_hull_probe import convex_hull_probe
from reference_impls.connectivity.spro import spro

FIGURE = Figure(
    title="Training loss at random points between three networks, sorted: their convex hull and the trained complex",
    setting=(
        "Three perceptrons of the toy zoo, 32 units wide, trained on the digits from different initialisations; two "
        "connectors, 60 steps each at learning rate 0.1; 60 points."
    ),
    x="share of the points with a lower loss",
    y="training loss",
    reading="Two trained vertices turn the hill between the networks into a volume of low loss.",
)


def measure(seed: int) -> Run:
    family = networks("mlp", seed, count=3, width=32)
    train_loss = lambda model: family.loss(model, 1000)  # noqa: E731
    joined = spro(family.models, train_loss, num_connectors=2, num_steps=60, lr=0.1)
    losses = {
        "convex hull": convex_hull_probe(family.models, train_loss, num_points=60).losses.tolist(),
        "trained complex": [float(train_loss(joined.sample(generator(i))).detach()) for i in range(60)],
    }
    ends = sum(float(train_loss(model).detach()) for model in family.models) / 3
    shares = [round(i / 59, 4) for i in range(60)]
    table = {
        "Mean loss": {name: sum(values) / 60 for name, values in losses.items()},
        "Highest loss": {name: max(values) for name, values in losses.items()},
        "Mean loss above that of the networks": {name: sum(values) / 60 - ends for name, values in losses.items()},
    }
    return Run({name: (shares, sorted(values)) for name, values in losses.items()}, table)
