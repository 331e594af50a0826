"""The length of a model on the way from one to another: along the straight line, and along the arc."""

import math

import torch

from docs.demos.picture import Control, Picture
from reference_impls.averaging.slerp import slerp
from reference_impls.averaging.uniform_soup import uniform_soup

CONTROLS = [Control("angle", 10, 170, 90, 10), Control("longer", 1.0, 3.0, 1.0, 0.25)]


def demo(angle, longer):
    radians = math.radians(angle)
    a = {"w": torch.tensor([1.0, 0.0])}
    b = {"w": longer * torch.tensor([math.cos(radians), math.sin(radians)])}
    ts = [i / 20 for i in range(21)]
    line = [uniform_soup([a, b], weights=[1 - t, t])["w"].norm().item() for t in ts]
    arc = [slerp(a, b, t=t)["w"].norm().item() for t in ts]
    return Picture(
        title="Length of the merged weights between two models",
        reading="The straight line cuts the corner and shrinks the weights; spherical interpolation keeps their length.",
        x="t",
        y="length",
        at=ts,
        series={"straight line": line, "slerp": arc},
    )
