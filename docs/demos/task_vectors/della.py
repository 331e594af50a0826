"""DELLA drops entries at random, the small ones more often, and rescales what stays by its own probability."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import entries, generator
from reference_impls.task_vectors.della import della

CONTROLS = [Control("density", 0.3, 0.7, 0.5, 0.1), Control("epsilon", 0.0, 0.6, 0.6, 0.1), Control("draws", 20, 200, 100, 20)]


def demo(density, epsilon, draws):
    moves = torch.randn(16, generator=generator(1)).abs().sort().values + 0.2
    g, kept = generator(2), torch.zeros(16)
    for _ in range(draws):
        one = della({"w": torch.zeros(16)}, [{"w": moves}], density=density, epsilon=epsilon, scaling_coef=1.0, generator=g)
        kept += (one["w"] != 0) / draws
    return Picture(
        title="How often each entry of a task vector is kept, smallest entry first",
        reading="DARE keeps every entry equally often; DELLA the large ones more often, as many in all. With epsilon 0 it "
        "is DARE.",
        x="entry, by size",
        y="share of draws",
        kind="dot",
        at=entries(16),
        series={"density": torch.full((16,), density), "kept by DELLA": kept},
    )
