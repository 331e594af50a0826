"""How far to go from the pre-trained model to the average of its fine-tunes: a function of the angle between them."""

import math

import torch

from docs.demos.picture import Control, Picture
from reference_impls.averaging.model_stock import model_stock
from reference_impls.averaging.uniform_soup import uniform_soup

CONTROLS = [Control("count", 2, 6, 2, 1), Control("length", 0.5, 2.0, 1.0, 0.25)]


def models(degrees, count, length):
    """As many models at the same angle to each other, all as far from zero."""
    cosine = math.cos(math.radians(degrees))
    own = math.sqrt(1 - cosine)
    common = (math.sqrt(1 - cosine + count * cosine) - own) / count
    return [{"w": length * row} for row in own * torch.eye(count) + common]


def demo(count, length):
    base, angles = {"w": torch.zeros(count)}, list(range(0, 91, 10))
    share = []
    for angle in angles:
        finetuned = models(angle, count, length)
        mean = uniform_soup(finetuned)["w"]
        merged = model_stock(base, finetuned)["w"]
        share.append((merged.norm() / mean.norm()).item())
    return Picture(
        title="Share of the average in Model Stock, by the angle between the fine-tuned models",
        reading="Models that point one way are averaged as they are; the more they point apart, the nearer the merged "
        "one stays to "
        "the base.",
        x="angle between the models, degrees",
        y="share of the average",
        at=angles,
        series={"mean": [1.0] * len(angles), "Model Stock": share},
    )
