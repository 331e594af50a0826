"""Small values for the inputs of this chapter: name -> make(device), or method -> {name -> make(device)}."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Conditional(nn.Module):
    """A perceptron of two hidden layers on a vector and a class label: generator or discriminator of a toy GAN."""

    def __init__(self, inputs: int, outputs: int, width: int, classes: int = 2) -> None:
        super().__init__()
        self.classes = classes
        self.first, self.second = nn.Linear(inputs + classes, width), nn.Linear(width, width)
        self.last = nn.Linear(width, outputs)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        x = torch.cat([x, F.one_hot(labels, self.classes).to(x.dtype)], dim=1)
        x = F.leaky_relu(self.second(F.leaky_relu(self.first(x), 0.2)), 0.2)
        return self.last(x).squeeze(1)


def seeded(seed: int, make):
    """Build a network from a seed; the global random state stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


VALUES: dict[str, Any] = {
    "latent_dim": lambda device: 3,
    "generators": lambda device: [seeded(s, lambda: Conditional(3, 2, 4)).to(device) for s in (1, 2)],
    "discriminators": lambda device: [seeded(s, lambda: Conditional(2, 1, 4)).to(device) for s in (3, 4)],
}
