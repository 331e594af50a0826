"""Small values for the inputs of this chapter: name -> make(device), or method -> {name -> make(device)}."""

from __future__ import annotations

from typing import Any

from tests.methods.distillation.toy_values import LETTERS, PAIRS, language_model

VALUES: dict[str, Any] = {
    "packllm": {
        "networks": lambda device: [language_model(3, 1, device), language_model(4, 2, device)],
        "prompt": lambda device: "abcacb",
        "tokenizers": lambda device: [LETTERS, PAIRS],
    },
}
