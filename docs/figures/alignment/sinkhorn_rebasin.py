"""The line between networks before and after Sinkhorn re-basin."""

from __future__ import annotations

import torch

from docs.figures.figure import Figure, Run
from docs.figures.toys import MATCHING, generator, matching, recovery
from reference_impls.alignment.sinkhorn_rebasin import sinkhorn_rebasin
from reference_impls.core import toy_zoo

FIGURE = Figure(
    title="Test loss on the line between two networks, before and after Sinkhorn re-basin",
    setting=MATCHING + " Objective: the loss of 200 training examples at the midpoint.",
    x="position on the line",
    y="test loss",
    reading=(
        "Between convolutional networks, gradient descent on the loss of the midpoint lowers the hill further than the "
        "weights alone can; between transformers it does not help."
    ),
)


def measure(seed: int) -> Run:
    def match(pair, seed):
        return sinkhorn_rebasin(*pair.models, pair.spec, objective="midpoint", loss_fn=lambda model: pair.loss(model, 200))

    return matching(seed, match, ("residual", "conv", "vit"))


def recover() -> dict[str, list[int]]:
    small = {
        "perceptron, 16 units wide": toy_zoo.MLP((64, 16, 16, 10)),
        "convolutional network, 8 channels": toy_zoo.ConvNet(8),
        "transformer, 16 units wide": toy_zoo.VisionTransformer(16, 2, 1),
    }
    subjects = {}
    for name, network in small.items():
        model = toy_zoo.initialise(network, generator(0))
        subjects[name] = network, lambda seed, model=model: {k: torch.clone(v) for k, v in model.items()}
    return recovery(lambda a, b, spec, *_: sinkhorn_rebasin(a, b, spec, num_steps=5, max_iter=10), subjects)
