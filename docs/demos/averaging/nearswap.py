"""By how much an entry moves towards the second model, by how far the two models are apart."""

import torch

from docs.demos.picture import Control, Picture
from reference_impls.averaging.nearswap import nearswap
from reference_impls.averaging.uniform_soup import uniform_soup

CONTROLS = [Control("t", 0.0, 1.0, 0.25, 0.05)]


def demo(t):
    apart = torch.linspace(-1, 1, 41)
    a, b = {"w": torch.zeros(41)}, {"w": apart}
    return Picture(
        title="Change of an entry of the first model, by its distance from the second model's",
        reading="Up to a distance of t the second model's value is taken; beyond it the step stays t, where the mean "
        "goes half of any way.",
        x="second model's entry less the first's",
        y="change",
        at=apart,
        series={"mean": uniform_soup([a, b])["w"], "NearSwap": nearswap(a, b, t=t)["w"]},
    )
