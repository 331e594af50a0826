"""Toy values of the inputs that only methods of this chapter have."""

import torch


def stack(seed, device):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"embed": (3, 2), "blocks.0.w": (2, 2), "blocks.0.b": (2,), "blocks.1.w": (2, 2), "blocks.1.b": (2,), "head": (2,)}
    return {name: torch.randn(shape, generator=generator).to(device) for name, shape in shapes.items()}


VALUES = {
    "wemoe": {"modules": lambda device: ["first"]},
    "passthrough": {
        "models": lambda device: [stack(1, device), stack(2, device)],
        "slices": lambda device: [(0, 0, 2), (1, 1, 2)],
    },
}
