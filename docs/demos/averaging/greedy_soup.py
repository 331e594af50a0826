"""A soup of five models of which two went wrong: which of them the greedy soup takes."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import generator, loss, mlp, moons, trained
from reference_impls.averaging.greedy_soup import greedy_soup
from reference_impls.averaging.uniform_soup import uniform_soup

CONTROLS = [Control("spoiled", 0, 4, 2, 1), Control("noise", 0.0, 2.0, 1.0, 0.25)]


def demo(spoiled, noise):
    network, train, held_out = mlp(2, 12, 2), moons(0), moons(1)
    base = trained(network, train, steps=20)
    models = [trained(network, train, start=base, steps=20, lr=0.01 * (i + 1)) for i in range(5)]
    for i in range(spoiled):
        models[i] = {key: w + noise * torch.randn(w.shape, generator=generator(i)) for key, w in models[i].items()}
    score = lambda theta: -loss(network, theta, held_out).item()
    soups = {"uniform": uniform_soup(models), "greedy": greedy_soup(models, score), "best model": max(models, key=score)}
    return Picture(
        title="Held-out loss of five models and of their soups",
        reading="The spoiled models raise the loss of the uniform soup; the greedy one adds a model only if the held-out "
        "score does "
        "not fall.",
        x="",
        y="held-out loss",
        kind="bar",
        at=[*(f"model {i}" for i in range(1, 6)), *soups],
        series={"loss": [-score(theta) for theta in [*models, *soups.values()]]},
    )
