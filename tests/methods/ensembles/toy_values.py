"""Small values for the inputs of this chapter: name -> make(device), or method -> {name -> make(device)}."""

from __future__ import annotations

from typing import Any

import torch

from tests.methods.distillation.toy_values import LETTERS, PAIRS, language_model, staged


def domain(low: int, device) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Texts of two of the three letters, in turn: one batch of (tokens, the same moved by one)."""
    text = torch.arange(7).remainder(2).add(low).expand(2, -1).to(device)
    return [(text[:, :-1], text[:, 1:])]


VALUES: dict[str, Any] = {
    "evolutionary_gaming": {
        "networks": lambda device: [staged((4, 5, 3), 1, device), staged((4, 2), 2, device)],
        "inputs": lambda device: torch.randn(20, 4, generator=torch.Generator().manual_seed(0)).to(device),
        "num_clusters": lambda device: 3,
    },
    "branch_train_merge": {
        "network": lambda device: language_model(3, 0, device),
        "base": lambda device: language_model(3, 1, device).state_dict(),
        "domains": lambda device: [domain(0, device), domain(1, device)],
    },
    "packllm": {
        "networks": lambda device: [language_model(3, 1, device), language_model(4, 2, device)],
        "prompt": lambda device: "abcacb",
        "tokenizers": lambda device: [LETTERS, PAIRS],
    },
}
