"""Toy values of the inputs that only methods of this chapter have."""

import torch

from tests.methods.toy_values import network_inputs


def adapters(device):
    """Three LoRAs of rank 2 of the toy network's layers."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(shape, generator=generator).to(device)  # noqa: E731
    shapes = {"first.weight": (6, 4), "second.weight": (3, 6)}
    return [{name: (draw(2, n), draw(m, 2)) for name, (m, n) in shapes.items()} for _ in range(3)]


def task_batches(device):
    """Two tasks of two batches each."""
    batches = network_inputs(device)["batches"]
    return [batches[:2], [(x.flip(1), y) for x, y in batches[1:]]]


def metrics(device):
    """For each of three models, how near a state dict is to it."""
    targets = network_inputs(device)["finetuned"]
    return [lambda m, t=t: -sum(((m[k].float() - t[k].float()) ** 2).sum().item() for k in t) for t in targets]


def fitness(device):
    """How low the toy network's loss is."""
    loss_fn = network_inputs(device)["loss_fn"]
    return lambda m: -float(loss_fn(m).detach())


VALUES = {"fitness": fitness, "metrics": metrics, "adapters": adapters, "task_batches": task_batches}
