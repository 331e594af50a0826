"""Small models on disk, named as those of a language model."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

LAYERS, WIDTH, TOKENS = 4, 16, 40


def language_model(seed: int, base: dict[str, Tensor] | None = None, dtype: torch.dtype = torch.bfloat16) -> dict[str, Tensor]:
    """Random weights, or those of `base` moved a little."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"model.embed_tokens.weight": (TOKENS, WIDTH)}
    for layer in range(LAYERS):
        stem = f"model.layers.{layer}"
        shapes |= {f"{stem}.input_layernorm.weight": (WIDTH,), f"{stem}.self_attn.q_proj.weight": (WIDTH, WIDTH)}
        shapes |= {f"{stem}.mlp.up_proj.weight": (2 * WIDTH, WIDTH), f"{stem}.mlp.down_proj.weight": (WIDTH, 2 * WIDTH)}
    shapes |= {"model.norm.weight": (WIDTH,), "lm_head.weight": (TOKENS, WIDTH)}
    model = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        model[name] = (0.5 * noise if base is None else base[name].float() + 0.05 * noise).to(dtype)
    return model


def save(folder: Path, model: dict[str, Tensor], layers: int = LAYERS) -> Path:
    """Write a model with config.json and a tokenizer."""
    folder.mkdir(parents=True)
    save_file(model, folder / "model.safetensors", metadata={"format": "pt"})
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": WIDTH, "vocab_size": TOKENS}
    config |= {"num_hidden_layers": layers, "torch_dtype": "bfloat16", "layer_types": [f"kind{i}" for i in range(layers)]}
    (folder / "config.json").write_text(json.dumps(config))
    tokens = {f"t{i}": i for i in range(TOKENS)}
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": tokens}}))
    (folder / "generation_config.json").write_text('{"temperature": 0.5}')
    return folder


def family(folder: Path) -> dict[str, dict[str, Tensor]]:
    """Write a base and three fine-tunes of it: base, a, b and c."""
    models = {"base": language_model(0)}
    models |= {name: language_model(seed, models["base"]) for seed, name in enumerate("abc", 1)}
    for name, model in models.items():
        save(folder / name, model)
    return models
