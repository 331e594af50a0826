"""Toy values for the inputs that only this chapter has."""

from __future__ import annotations

import torch

from tests.methods import toy_values


def _score(device):
    loss_fn = toy_values.network_inputs(device)["loss_fn"]
    return lambda state_dict: -loss_fn(state_dict).item()


def _rewards(device):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(24, 3, generator=generator).to(device) for _ in range(3)]  # 24 inputs, 3 actions, 3 preferences


def _preferences(device):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(24, 4, generator=generator).to(device), torch.randn(24, 4, generator=generator).to(device)


VALUES = {
    "task_batches": lambda device: [toy_values.network_inputs(device)["batches"]] * 3,
    "score": _score,
    "rewards": _rewards,
    "preferences": _preferences,
    "base_fisher": lambda device: {k: v.square() + 0.1 for k, v in toy_values.network_inputs(device)["base"].items()},
}
