"""A multimodal language model in little: patches of half an image and a question as tokens, one answer.

Each modality is one half of a digit with its own encoder. The tokens pass through a layer of attention and a perceptron, the answer is
read at the question's token. Weights of modality tokens may stand apart from those of text ("top.expand" beside "expand").
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from reference_impls.core import toy_zoo
from reference_impls.core.toy_zoo.training import single_thread
from reference_impls.task_vectors.damc import decouple, decoupled_linear

WIDTH = 32
LAYERS = ("q", "k", "v", "out", "expand", "contract")
HALVES = {"top": slice(0, 4), "bottom": slice(4, 8)}


def language_model(seed: int) -> dict[str, Tensor]:
    """Random weights of the language model and of the question."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(shape, generator=generator) / shape[-1] ** 0.5  # noqa: E731
    shapes = {"q": (WIDTH, WIDTH), "k": (WIDTH, WIDTH), "v": (WIDTH, WIDTH), "out": (WIDTH, WIDTH)}
    shapes |= {"expand": (2 * WIDTH, WIDTH), "contract": (WIDTH, 2 * WIDTH), "head": (10, WIDTH)}
    return {"question": draw(1, WIDTH), **{name: draw(*shape) for name, shape in shapes.items()}}


def encoder(modality: str, seed: int) -> dict[str, Tensor]:
    """Two by four pixels of a patch and its position to a token."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(shape, generator=generator) / 2  # noqa: E731
    return {f"{modality}.encoder": draw(WIDTH, 8), f"{modality}.position": draw(4, WIDTH)}


def forward(model: dict[str, Tensor], images: Tensor, modalities: tuple[str, ...]) -> Tensor:
    """Logits (n, 10) of images (n, 1, 8, 8) of which only the halves `modalities` are seen."""
    tokens, kinds = [model["question"].expand(len(images), 1, WIDTH)], [None]
    for modality in modalities:
        half = images[:, 0, HALVES[modality]].unflatten(2, (2, 4)).unflatten(1, (2, 2)).transpose(2, 3).reshape(-1, 4, 8)
        tokens.append(half @ model[f"{modality}.encoder"].T + model[f"{modality}.position"])
        kinds += [modality] * 4
    x = torch.cat(tokens, dim=1)

    def layer(name: str, inputs: Tensor) -> Tensor:
        weights = {kind: model.get(f"{kind}.{name}", model[name]) for kind in set(kinds)}
        return decoupled_linear(inputs, kinds, weights)

    scores = layer("q", x) @ layer("k", x).transpose(1, 2) / WIDTH**0.5
    x = x + layer("out", scores.softmax(-1) @ layer("v", x))
    x = x + layer("contract", layer("expand", x).relu())
    return x[:, 0] @ model["head"].T


@single_thread()
def train(model: dict[str, Tensor], modalities: tuple[str, ...], split, *, num_steps: int, lr: float, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    model = {name: t.clone().requires_grad_() for name, t in model.items()}
    optimizer = torch.optim.Adam(model.values(), lr=lr)
    for _ in range(num_steps):
        index = torch.randint(len(split[0]), (64,), generator=generator)
        loss = torch.nn.functional.cross_entropy(forward(model, split[0][index], modalities), split[1][index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {name: t.detach() for name, t in model.items()}


@torch.no_grad()
def accuracy(model: dict[str, Tensor], modalities: tuple[str, ...], split) -> float:
    return (forward(model, split[0], modalities).argmax(-1) == split[1]).float().mean().item()


def images():
    return toy_zoo.digits(flat=False)


@lru_cache
def trained(seed: int, decoupled: bool) -> tuple[dict[str, Tensor], ...]:
    """A model of the top halves and one of the bottom halves, fine-tuned from one language model with new encoders."""
    split = images().train
    start = {**language_model(seed), **encoder("top", 100 + seed), **encoder("bottom", 200 + seed)}
    pretrained = train(start, ("top", "bottom"), split, num_steps=100, lr=3e-3, seed=seed)
    language = {name: pretrained[name] for name in language_model(seed)}
    models = []
    for j, modality in enumerate(HALVES):
        model = {**language, **encoder(modality, 300 + 10 * seed + j)}
        model = decouple(model, modality, LAYERS) if decoupled else model
        models.append(train(model, (modality,), split, num_steps=150, lr=3e-3, seed=10 * seed + j))
    return tuple(models)
