"""Graph reprogramming: values that pad the nodes' features make a frozen graph network solve another task."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import drawn, generator
from reference_impls.reuse.graph_reprogramming import GraphNetwork, graph_reprogramming

CONTROLS = [Control("num_steps", 0, 60, 40, 10), Control("lr", 0.01, 0.1, 0.05, 0.01)]


def demo(num_steps, lr):
    network, g = GraphNetwork(6, 16, 4), generator(0)
    network.load_state_dict(drawn(network, 1))
    targets = torch.arange(24) % 2
    features = torch.randn(24, 3, generator=g) + (2 * targets[:, None] - 1)
    alike = targets[:, None] == targets[None]
    linked = torch.rand(24, 24, generator=g) < torch.where(alike, 0.25, 0.05)
    adjacency = (linked | linked.T).float().fill_diagonal_(0)
    losses = []
    for program, steps in (("features", 0), ("features", num_steps), ("graph", num_steps)):
        model = graph_reprogramming(
            network, features, adjacency, targets, program=program, num_steps=steps, lr=lr, generator=generator(0)
        )
        with torch.no_grad():
            losses.append(torch.nn.functional.nll_loss(model(features, adjacency), targets))
    return Picture(
        title="Loss of a frozen graph network at a task that it was never trained for",
        reading="Every node gets the same trained values beside its features, or trained nodes are attached as well; the "
        "network's weights stay.",
        x="",
        y="loss",
        kind="bar",
        at=["no training", "padded features", "padded graph"],
        series={"loss": losses},
    )
