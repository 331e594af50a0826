"""Adapters added up factor by factor, or as the updates that they stand for."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import generator
from reference_impls.task_vectors.pem_composition import pem_composition

CONTROLS = [Control("weight", 0.0, 1.0, 0.5, 0.1), Control("rank", 1, 6, 2, 1)]


def demo(weight, rank):
    g = generator(7)
    adapters = [{"w": (torch.randn(3, 12, generator=g), torch.randn(12, 3, generator=g))} for _ in range(2)]
    weights = [weight, 1 - weight]
    exact = sum(w * B @ A for w, (A, B) in zip(weights, (adapter["w"] for adapter in adapters)))
    ways = {
        "factors": pem_composition(adapters, weights=weights),
        "svd": pem_composition(adapters, weights=weights, combine="svd", rank=rank),
        "concatenate": pem_composition(adapters, weights=weights, combine="concatenate"),
    }
    wrong = lambda made: torch.linalg.matrix_norm(made["w"][1] @ made["w"][0] - exact) / torch.linalg.matrix_norm(exact)
    return Picture(
        title="Distance from the weighted sum of two updates of rank three",
        reading="The paper adds A to A and B to B, whose product has terms that belong to neither adapter; putting the "
        "factors side by side is exact, at twice the rank, and the svd the best there is at its rank.",
        x="",
        y="relative distance",
        kind="bar",
        at=list(ways),
        series={"distance": [wrong(made) for made in ways.values()]},
    )
