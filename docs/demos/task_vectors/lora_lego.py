"""LoRA-LEGO takes adapters apart into their rank-one units, clusters them, and builds one adapter of the centres."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import generator
from reference_impls.task_vectors.lora_lego import lora_lego
from reference_impls.task_vectors.pem_composition import pem_composition

CONTROLS = [Control("rank", 2, 8, 4, 1), Control("noise", 0.0, 1.0, 0.2, 0.1)]


def demo(rank, noise):
    g = generator(6)
    A, B = torch.randn(4, 10, generator=g), torch.randn(10, 4, generator=g)
    adapters = []
    for turn in range(3):  # one adapter, its four units in other orders, each a little changed
        order = [(i + turn) % 4 for i in range(4)]
        change = lambda x: x + noise * torch.randn(x.shape, generator=g)
        adapters.append({"w": (change(A[order]), change(B[:, order]))})
    ways = {"mean of factors": pem_composition(adapters), "LEGO": lora_lego(adapters, rank=rank)}
    wrong = lambda made: torch.linalg.matrix_norm(made["w"][1] @ made["w"][0] - B @ A) / torch.linalg.matrix_norm(B @ A)
    return Picture(
        title="Distance of the merged update from the one that all three adapters hold",
        reading="The adapters differ in the order of their units. Adding up the factors mixes units that do not belong "
        "together; the clusters find them again, if there are as many as units.",
        x="",
        y="relative distance",
        kind="bar",
        at=list(ways),
        series={"distance": [wrong(made) for made in ways.values()]},
    )
