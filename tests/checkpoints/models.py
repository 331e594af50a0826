"""Small models on disk, named as those of a language model."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

LAYERS, WIDTH, TOKENS = 4, 16, 40
HEADS, KEYS, HEAD = 4, 2, 6  # of `llama`: heads of queries, of keys and values, and the size of each


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


def llama(seed: int, layers: int = 2) -> dict[str, Tensor]:
    """Random weights with all the tensors of a Llama."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"model.embed_tokens.weight": (TOKENS, WIDTH), "model.norm.weight": (WIDTH,), "lm_head.weight": (TOKENS, WIDTH)}
    for layer in range(layers):
        attention, mlp = f"model.layers.{layer}.self_attn", f"model.layers.{layer}.mlp"
        shapes |= {f"model.layers.{layer}.{place}_layernorm.weight": (WIDTH,) for place in ("input", "post_attention")}
        shapes |= {f"{attention}.{name}_proj.weight": (count * HEAD, WIDTH) for name, count in zip("qkv", (HEADS, KEYS, KEYS))}
        shapes |= {f"{attention}.o_proj.weight": (WIDTH, HEADS * HEAD), f"{mlp}.down_proj.weight": (WIDTH, 3 * WIDTH)}
        shapes |= {f"{mlp}.{name}_proj.weight": (3 * WIDTH, WIDTH) for name in ("gate", "up")}
    return {name: 0.5 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def mlp(seed: int) -> dict[str, Tensor]:
    """Random weights of a perceptron with two hidden layers, named as those of `nn.Sequential`, and a counter."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"0.weight": (9, 5), "0.bias": (9,), "2.weight": (7, 9), "2.bias": (7,), "4.weight": (3, 7), "4.bias": (3,)}
    model = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return model | {"steps": torch.tensor(seed)}


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
