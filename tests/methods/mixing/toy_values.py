"""Toy values of the inputs that only methods of this chapter have, and a small network with a feed-forward module."""

import torch
from torch import Tensor, nn

from tests.methods.toy_values import network_inputs, toy_network


class BlockNet(nn.Module):
    """A residual network on digits whose feed-forward parts are modules: `blocks.0.mlp`, `blocks.1.mlp`."""

    class Block(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(width)
            self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.mlp(self.norm(x))

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(64, width), nn.Linear(width, 10)
        self.blocks = nn.ModuleList(self.Block(width) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


MLPS = ["blocks.0.mlp", "blocks.1.mlp"]


def stack(seed, device):
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "embed": (3, 2),
        "blocks.0.w": (2, 2),
        "blocks.0.b": (2,),
        "blocks.1.w": (2, 2),
        "blocks.1.b": (2,),
        "head": (2,),
    }
    return {name: torch.randn(shape, generator=generator).to(device) for name, shape in shapes.items()}


def adapter(seed, device):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator).to(device)  # noqa: E731
    return {"first.weight": (draw(2, 4), draw(6, 2)), "second.weight": (draw(2, 6), draw(3, 2))}


def linear(inputs, outputs, seed, device):
    """A linear layer that takes nothing from the global random numbers."""
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return layer.to(device)


def layer_lists(device):
    wide, deep = ((4, 7, 3), (4, 5, 6, 3))

    def build(sizes):
        pairs = [(linear(a, b, i + len(sizes), device), nn.ReLU()) for i, (a, b) in enumerate(zip(sizes, sizes[1:]))]
        return [layer for pair in pairs for layer in pair][:-1]

    return [build(wide), build(deep)]


def fitness(device):
    batches = network_inputs(device)["batches"]
    return lambda network: -sum(nn.functional.cross_entropy(network(x), y).item() for x, y in batches)


VALUES = {
    "layer_lists": layer_lists,
    "inputs": lambda device: torch.cat([x for x, _ in network_inputs(device)["batches"]]),
    "anchor": lambda device: toy_network(1, device),
    "augmenting": lambda device: toy_network(2, device),
    "connections": lambda device: [("first", "first")],
    "embed": lambda device: linear(4, 6, 0, device),
    "layers": lambda device: [nn.Sequential(linear(6, 6, seed, device), nn.Tanh()) for seed in (1, 2, 3, 4)],
    "head": lambda device: linear(6, 3, 5, device),
    "fitness_fn": fitness,
    "adapters": lambda device: [adapter(seed, device) for seed in (1, 2, 3)],
    "passthrough": {
        "models": lambda device: [stack(1, device), stack(2, device)],
        "slices": lambda device: [(0, 0, 2), (1, 1, 2)],
    },
    "modules": lambda device: ["first"],
    "task_batches": lambda device: [network_inputs(device)["batches"]] * 3,
}
