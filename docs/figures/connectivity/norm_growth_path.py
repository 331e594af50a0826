"""Norms, the bound and the error against the number of training examples, each relative to the smallest."""

from __future__ import annotations

import math

import torch

from docs.figures.figure import Figure, Run
from docs.figures.toys import generator
from reference_impls.connectivity.norm_growth_path import norm_growth_path
from reference_impls.core import toy_zoo

FIGURE = Figure(
    title="Norms, bound and test error by the number of training examples, each relative to 32 examples",
    setting=(
        "A perceptron with one hidden layer of 128 units, trained from one initialisation until 99 % of the examples are "
        "classified with a margin of 5."
    ),
    x="training examples",
    y="relative to 32 examples",
    reading=(
        "The norms grow and the error falls; a bound made of norms does not follow the error. Two runs on different "
        "samples are joined by a line without barrier."
    ),
    log_y=True,
)
SIZES = (32, 125, 500)
MARGIN = 5.0


def measure(seed: int) -> Run:
    task, network = toy_zoo.digits(flat=True), toy_zoo.MLP((64, 128, 10)).eval()

    def fit(model, size, generator):
        index = torch.randperm(1000, generator=generator)[:size]
        inputs, targets = task.train[0][index], task.train[1][index]
        for _ in range(40):
            model = toy_zoo.train(network, model, (inputs, targets), num_steps=15, lr=2e-3, generator=generator)
            logits = toy_zoo.logits(network, model, inputs)
            right = logits.gather(1, targets[:, None])[:, 0]
            others = logits.scatter(1, targets[:, None], -math.inf).amax(dim=1)
            if (right - others > MARGIN).float().mean() >= 0.99:
                break
        return model

    start = toy_zoo.initialise(network, generator(seed))
    error = lambda model: 1 - torch.tensor(toy_zoo.accuracy(network, model, task.test))  # noqa: E731
    found = norm_growth_path(start, fit, error, sizes=SIZES, margin=MARGIN, generator=generator(seed))
    measured = {
        "distance from the start": found.distances,
        "product of spectral norms": found.spectral_products,
        "bound, up to constants": found.bounds,
        "test error": found.test_losses,
    }
    sizes = [str(size) for size in SIZES]
    table = {name.capitalize(): {f"{s} examples": v for s, v in zip(sizes, values.tolist())} for name, values in measured.items()}
    table["Barrier between two runs, test error"] = {f"{sizes[-1]} examples": found.line.barrier.item()}
    return Run({name: (sizes, (values / values[0]).tolist()) for name, values in measured.items()}, table)
