"""Two linear models that were fitted where their own inputs vary: averaged, and merged by regression."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import generator
from reference_impls.averaging.regmean import regmean
from reference_impls.averaging.uniform_soup import uniform_soup

CONTROLS = [Control("alpha", 0.0, 1.0, 0.9, 0.1), Control("shared", 0.0, 1.0, 0.2, 0.1)]


def demo(alpha, shared):
    g = generator(0)
    spread = torch.tensor([1.0, 1.0, 1.0, shared, shared, shared])  # inputs vary in three directions, less in the others
    mix = torch.linalg.qr(torch.randn(6, 6, generator=g))[0]
    inputs = [(torch.randn(50, 6, generator=g) * s) @ mix for s in (spread, spread.flip(0))]
    models = [{"w": torch.randn(3, 6, generator=g)} for _ in inputs]
    grams = [{"w": x.T @ x} for x in inputs]
    error = lambda merged: [((x @ (merged["w"] - model["w"]).T) ** 2).mean().item() for x, model in zip(inputs, models)]
    return Picture(
        title="Mean squared difference from each model's outputs, on that model's inputs",
        reading="Where the inputs of the models vary in different directions, one weight can serve both: RegMean finds "
        "it, the mean does not.",
        x="",
        y="squared difference",
        kind="bar",
        at=["on the first model's inputs", "on the second's"],
        series={"mean": error(uniform_soup(models)), "RegMean": error(regmean(models, grams, alpha=alpha))},
    )
