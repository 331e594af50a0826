"""Parametric knowledge transfer: the most sensitive part of a large model's weights starts a small model's adapter."""

from torch import nn

from docs.demos.picture import Control, Picture
from docs.demos.toys import drawn, generator, loss_of, moons, trained
from reference_impls.distillation.parametric_knowledge_transfer import parametric_knowledge_transfer

CONTROLS = [Control("rank", 1, 4, 3, 1), Control("num_steps", 0, 40, 10, 5)]


class Blocks(nn.Module):
    """Two hidden layers in a list, as the method wants them, and a head."""

    def __init__(self, width):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(2, width), nn.Linear(width, width)])
        self.head = nn.Linear(width, 2)

    def forward(self, x):
        for block in self.blocks:
            x = block(x).tanh()
        return self.head(x)


def demo(rank, num_steps):
    task, large, small = moons(), Blocks(16), Blocks(6)
    large.load_state_dict(trained(large, task, steps=60))
    small.load_state_dict(drawn(small, 1))
    ways = {}
    for extract in ("random", "rows and columns", "submatrix"):
        ways[extract] = parametric_knowledge_transfer(
            large, small, [task], [task], rank=rank, extract=extract, num_steps=num_steps, lr=0.02, generator=generator(0)
        )
    return Picture(
        title="Loss of the small model after a few steps, by where its adapter started",
        reading="A start from the weights that the large model is most sensitive to; after ten steps it is ahead of a random "
        "start of the same rank.",
        x="",
        y="loss",
        kind="bar",
        at=["large model", *ways],
        series={"loss": [loss_of(network, task) for network in (large, *ways.values())]},
    )
