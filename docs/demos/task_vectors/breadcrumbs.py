"""Model Breadcrumbs on one task vector: both tails are masked, the largest entries and the small ones."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import entries, generator
from reference_impls.task_vectors.breadcrumbs import breadcrumbs

CONTROLS = [
    Control("density", 0.1, 0.8, 0.4, 0.1),
    Control("gamma", 0.0, 0.2, 0.1, 0.05),
    Control("scaling_coef", 0.1, 1.0, 1.0, 0.1),
]


def demo(density, gamma, scaling_coef):
    moves = torch.randn(20, generator=generator(0)).abs().sort().values
    base, finetuned = {"w": torch.zeros(20)}, [{"w": moves}]
    kept = breadcrumbs(base, finetuned, density=density, gamma=gamma, scaling_coef=scaling_coef)
    return Picture(
        title="A task vector by size of its entries, and what the mask leaves of it",
        reading="Where pruning by magnitude keeps the largest entries, breadcrumbs drop the very largest too: the share "
        "gamma on the right.",
        x="entry, by size",
        y="movement",
        kind="bar",
        at=entries(20),
        series={"task vector": moves, "breadcrumbs": kept["w"]},
    )
