"""DARE drops most of a task vector's entries and makes the others larger: single entries change, sums hardly do."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import generator
from reference_impls.task_vectors.dare import dare

CONTROLS = [Control("density", 0.1, 1.0, 0.3, 0.1), Control("seed", 0, 9, 0, 1)]


def demo(density, seed):
    base = {"w": torch.zeros(400)}
    model = {"w": 0.1 + 0.02 * torch.randn(400, generator=generator(7))}
    kept = dare(base, [model], density=density, generator=generator(seed))
    unscaled = dare(base, [model], density=density, rescale="none", generator=generator(seed))
    after = list(range(20, 401, 20))
    running = lambda weights: [weights["w"][:n].sum().item() for n in after]
    return Picture(
        title="Sum of the first entries of a task vector, whole and with most of its entries dropped",
        reading="Dropped and rescaled, the entries add up to nearly the same; without the rescaling the update fades away.",
        x="entries added up",
        y="sum",
        at=after,
        series={"all entries": running(model), "DARE": running(kept), "dropped, not rescaled": running(unscaled)},
    )
