"""Three networks joined by vertices that were trained: losses at random points between the networks and in the complex."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import entries, generator, loss, mlp, moons, trained
from reference_impls.connectivity.spro import spro
from reference_impls.core.paths import convex_combination

CONTROLS = [Control("num_steps", 0, 40, 40, 10), Control("num_connectors", 1, 2, 2, 1)]


def demo(num_steps, num_connectors):
    network, task = mlp(2, 12, 2), moons()
    models, count = [trained(network, task, seed) for seed in (1, 2, 3)], 20
    at = lambda theta: loss(network, theta, task)  # noqa: E731
    found = spro(
        models, at, num_connectors=num_connectors, num_samples=2, num_steps=num_steps, lr=0.5, generator=generator(0)
    )
    g = generator(1)
    inside = [at(found.sample(g)).item() for _ in range(count)]
    shares = -torch.rand(count, 3, generator=g).log()
    between = [at(convex_combination(models, (row / row.sum()).tolist())).item() for row in shares]
    return Picture(
        title="Loss at random points, the lowest first",
        reading="Between the three networks the loss is high at most points; in the simplexes that reach from each of them to "
        "the trained vertices it is about half as high.",
        x="point",
        y="loss",
        at=entries(count),
        series={"between the networks": sorted(between), "in the complex": sorted(inside)},
    )
