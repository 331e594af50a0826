"""From the initial weights to the trained ones: how long the loss stays flat, and what the biases have to do with it."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import blobs, drawn, loss, mlp, trained
from reference_impls.connectivity.mli_plateau import mli_plateau

CONTROLS = [Control("depth", 1, 4, 4, 1), Control("scale", 0.2, 1.0, 0.3, 0.1)]


def demo(depth, scale):
    network, (inputs, targets) = mlp(2, *[12] * depth, 3), blobs()
    kept = (targets == 0) | (torch.arange(60) < 15)  # most examples are of one class, so the last biases differ
    task = inputs[kept], targets[kept]
    initial = {key: scale * tensor for key, tensor in drawn(network, 1).items()}
    final = trained(network, task, start=initial)
    found = mli_plateau(initial, final, lambda theta: loss(network, theta, task), num_points=21)
    return Picture(
        title="Loss from the initial weights to the trained ones",
        reading="The deeper the network and the smaller its first weights, the longer the loss stays flat; the biases, which "
        "make long plateaus in large networks, matter little in one so small.",
        x="position on the way",
        y="loss",
        at=found.linear.ts,
        series={
            "all in step": found.linear.losses,
            "biases as slow as the signal": found.homogeneous.losses,
            "no last bias": found.unbiased.losses,
        },
    )
