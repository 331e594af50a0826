"""Two task vectors from one base: the length of the merged one along the straight line, around zero, and around the base."""

import math

import torch

from docs.demos.picture import Control, Picture
from reference_impls.averaging.nuslerp import nuslerp
from reference_impls.averaging.uniform_soup import uniform_soup

CONTROLS = [Control("angle", 10, 170, 120, 10), Control("base_length", 0.0, 5.0, 3.0, 0.5)]


def demo(angle, base_length):
    radians = math.radians(angle)
    base = {"w": torch.tensor([0.0, 0.0, base_length])}
    a = {"w": base["w"] + torch.tensor([1.0, 0.0, 0.0])}
    b = {"w": base["w"] + torch.tensor([math.cos(radians), math.sin(radians), 0.0])}
    ts = [i / 20 for i in range(21)]
    away = lambda model: (model["w"] - base["w"]).norm().item()
    return Picture(
        title="Length of the merged task vector between two fine-tuned models",
        reading="Turned around the base, the task vector keeps its length; turned around zero, the large base weighs so "
        "much that "
        "it hardly differs from the straight line.",
        x="share of the second model",
        y="distance from the base",
        at=ts,
        series={
            "straight line": [away(uniform_soup([a, b], weights=[1 - t, t])) for t in ts],
            "NuSLERP around zero": [away(nuslerp(a, b, weights=[1 - t, t])) for t in ts],
            "NuSLERP around the base": [away(nuslerp(a, b, weights=[1 - t, t], base=base)) for t in ts],
        },
    )
