"""Small values for the canonical inputs of methods, by name: what the contract test calls every method with.

`tensor_inputs` serves methods that see only tensors, in many odd structures; `network_inputs` serves methods that need a network, with
state dicts, data and statistics that belong together. A chapter's own names stand in tests/methods/<chapter>/toy_values.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

# Every structure is what a real checkpoint can hold, in little.
STRUCTURES: dict[str, dict[str, tuple[int, ...]]] = {
    "ordinary": {"embed.weight": (7, 4), "block.weight": (6, 4), "block.bias": (6,), "norm.weight": (6,), "head.weight": (3, 6)},
    "one element": {"w": (1,)},
    "scalar": {"w": ()},
    "column": {"w": (5, 1)},
    "row": {"w": (1, 5)},
    "empty tensor": {"w": (3, 2), "nothing": (0,)},
    "convolution": {"conv.weight": (4, 3, 3, 3), "conv.bias": (4,)},
}


def state_dict(structure: str, seed: int, *, dtype=torch.float32, device="cpu", fill: float | None = None) -> dict[str, Tensor]:
    """Return random (or constant) tensors of the structure, with an integer counter and a pair of tied weights."""
    generator = torch.Generator().manual_seed(seed)
    out = {}
    for name, shape in STRUCTURES[structure].items():
        values = torch.randn(shape, generator=generator) if fill is None else torch.full(shape, fill)
        out[name] = values.to(device, dtype)
    if structure == "ordinary":
        out["tied.weight"] = out["embed.weight"]
        out["steps"] = torch.tensor(seed, device=device)
    return out


def tensor_inputs(structure: str = "ordinary", *, dtype=torch.float32, device="cpu", fill: float | None = None) -> dict[str, Any]:
    make = lambda seed: state_dict(structure, seed, dtype=dtype, device=device, fill=fill)  # noqa: E731
    statistics = [{k: v.float().square() + 0.1 for k, v in make(s).items() if v.is_floating_point()} for s in (5, 6, 7)]
    base = make(0)
    return {
        "base": base,
        "finetuned": [make(1), make(2), make(3)],
        "models": [make(1), make(2), make(3)],
        "model_a": make(1),
        "model_b": make(2),
        "fishers": statistics,
        "loss_fn": lambda sd: sum(((v.float() - 0.5) ** 2).sum() for v in sd.values() if v.is_floating_point()),
        "weights": [0.5, 0.3, 0.2],
        "t": 0.3,
        "scaling_coef": 0.7,
    }


class ToyNetwork(nn.Module):
    """Two linear layers with a ReLU between, three classes out."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.second = nn.Linear(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.second(self.first(inputs).relu())


def toy_network(seed: int, device="cpu") -> ToyNetwork:
    network = ToyNetwork()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return network.to(device)


def network_inputs(device="cpu") -> dict[str, Any]:
    from torch.func import functional_call

    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(24, 4, generator=generator)
    targets = torch.randint(0, 3, (24,), generator=generator)
    batches = [(x.to(device), y.to(device)) for x, y in zip(inputs.split(8), targets.split(8))]
    weights_of = lambda seed: {k: v.detach().clone() for k, v in toy_network(seed, device).state_dict().items()}  # noqa: E731
    models = [weights_of(seed) for seed in (1, 2, 3)]
    network = toy_network(0, device)

    def loss_fn(sd: dict[str, Tensor]) -> Tensor:
        return sum(nn.functional.cross_entropy(functional_call(network, sd, (x,)), y) for x, y in batches) / len(batches)

    def hidden(sd: dict[str, Tensor]) -> Tensor:
        return torch.cat([torch.relu(x @ sd["first.weight"].T + sd["first.bias"]) for x, _ in batches])

    grams = []
    for model in models:
        x, h = torch.cat([x for x, _ in batches]), hidden(model)
        grams.append({"first.weight": x.T @ x, "second.weight": h.T @ h})
    return {
        "base": weights_of(0),
        "finetuned": models,
        "models": models,
        "model_a": models[0],
        "model_b": models[1],
        "fishers": [{k: v.square() + 0.1 for k, v in m.items()} for m in models],
        "grams": grams,
        "network": network,
        "networks": [toy_network(seed, device) for seed in (1, 2, 3)],
        "batches": batches,
        "loss_fn": loss_fn,
        "activations_a": {"first": hidden(models[0])},
        "activations_b": {"first": hidden(models[1])},
        "weights": [0.5, 0.3, 0.2],
        "t": 0.3,
        "scaling_coef": 0.7,
    }


# Names that only tensors stand behind: a method whose required inputs are all here is tried on every structure.
TENSOR_NAMES = frozenset({"base", "finetuned", "models", "model_a", "model_b", "fishers", "weights", "t", "scaling_coef"})

Values = Callable[[torch.device], dict[str, Any]]
