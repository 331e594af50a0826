"""Five models of different lengths and directions: the mean of the weights shrinks, Multi-SLERP keeps the mean length."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import generator
from reference_impls.averaging.multislerp import multislerp
from reference_impls.averaging.uniform_soup import uniform_soup

CONTROLS = [Control("spread", 0.0, 3.0, 1.0, 0.25), Control("seed", 0, 9, 0, 1)]


def demo(spread, seed):
    common = torch.ones(30)
    counts = list(range(1, 9))
    models = [{"w": common + spread * row} for row in torch.randn(8, 30, generator=generator(seed))]
    length = lambda merge: [merge(models[:n])["w"].norm().item() for n in counts]
    return Picture(
        title="Length of the merged model, by how many models are merged",
        reading="What the models do not share cancels in the mean and takes its length along; Multi-SLERP keeps the "
        "models' mean length.",
        x="models",
        y="length",
        at=counts,
        series={"mean": length(uniform_soup), "Multi-SLERP": length(multislerp)},
    )
