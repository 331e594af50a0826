"""Models on a circle of directions: their mean falls inside, the Karcher mean stays on it, in the middle by arc length."""

import math

import torch

from docs.demos.picture import Control, Picture
from reference_impls.averaging.karcher_mean import karcher_mean
from reference_impls.averaging.uniform_soup import uniform_soup

CONTROLS = [Control("spread", 20, 170, 150, 10), Control("weight", 0.1, 0.9, 0.3, 0.1), Control("max_iter", 1, 10, 10, 1)]


def demo(spread, weight, max_iter):
    angles = [0.0, math.radians(spread)]
    models = [{"w": torch.tensor([math.cos(angle), math.sin(angle)])} for angle in angles]
    shares = [1 - weight, weight]
    mean = uniform_soup(models, weights=shares)["w"]
    karcher = karcher_mean(models, weights=shares, max_iter=max_iter)["w"]
    circle = torch.linspace(0, math.radians(180), 25)
    return Picture(
        title="Two models of length one, their weighted mean, and their weighted Karcher mean",
        reading="The Karcher mean has length one, and its arcs to the models are in the proportion of the weights; "
        "the mean is short and bent towards the heavier one.",
        x="first weight",
        y="second weight",
        kind="scatter",
        series={
            "length one": (circle.cos(), circle.sin()),
            "models": ([model["w"][0].item() for model in models], [model["w"][1].item() for model in models]),
            "mean": ([mean[0].item()], [mean[1].item()]),
            "Karcher mean": ([karcher[0].item()], [karcher[1].item()]),
        },
    )
