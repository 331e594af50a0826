"""Small values for the inputs of this chapter: name -> make(device), or method -> {name -> make(device)}."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reference_impls.reuse.graph_reprogramming import GraphNetwork


class Conditional(nn.Module):
    """A perceptron of two hidden layers on a vector and a class label: generator or discriminator of a toy GAN."""

    def __init__(self, inputs: int, outputs: int, width: int, classes: int = 2) -> None:
        super().__init__()
        self.classes = classes
        self.first, self.second = nn.Linear(inputs + classes, width), nn.Linear(width, width)
        self.last = nn.Linear(width, outputs)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        x = torch.cat([x, F.one_hot(labels, self.classes).to(x.dtype)], dim=1)
        x = F.leaky_relu(self.second(F.leaky_relu(self.first(x), 0.2)), 0.2)
        return self.last(x).squeeze(1)


class Speech(nn.Module):
    """Two convolutions over a waveform, the mean and the largest value of each channel, and a linear head."""

    def __init__(self, words: int, width: int = 16) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(1, width, 17, stride=4, padding=8), nn.Conv1d(width, width, 5, padding=2)
        self.head = nn.Linear(2 * width, words)

    def forward(self, waves: Tensor) -> Tensor:
        x = self.second(self.first(waves.unsqueeze(1)).relu()).relu()
        return self.head(torch.cat([x.mean(dim=2), x.amax(dim=2)], dim=1))


class EncoderBlock(nn.Module):
    """Half of a Conformer block: a depthwise convolution over frames and a two-layer perceptron, added to the stream."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.mix = nn.LayerNorm(width), nn.Conv1d(width, width, 3, padding=1, groups=width)
        self.expand, self.contract = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, frames: Tensor) -> Tensor:
        mixed = self.mix(self.norm(frames).transpose(1, 2)).transpose(1, 2)
        return frames + self.contract(self.expand(mixed).relu())


def speech_encoder(seed: int, bins: int, width: int) -> nn.Sequential:
    return seeded(seed, lambda: nn.Sequential(nn.Linear(bins, width), EncoderBlock(width), EncoderBlock(width)))


def spoken(device) -> list[tuple[Tensor, Tensor]]:
    frames = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(0))
    return [(frames.to(device), (torch.arange(18).reshape(3, 6) % 2).to(device))]


class Recall(nn.Module):
    """A language model that predicts from the last two tokens: by heart, and by looking up what followed the same two before."""

    def __init__(self, vocabulary: int, width: int = 24) -> None:
        super().__init__()
        self.embed, self.threshold = nn.Embedding(vocabulary, width), nn.Parameter(torch.tensor(0.9))
        self.hidden, self.out, self.copy = nn.Linear(3 * width, 96), nn.Linear(96, width), nn.Linear(width, width)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        e = self.embed(tokens)
        pair = torch.cat([F.pad(e, (0, 0, 1, 0))[:, :-1], e], dim=2)  # the last two tokens
        before = F.pad(pair, (0, 0, 1, 0))[:, :-1]  # the two tokens before each token
        alike = 30 * (F.normalize(pair, dim=2) @ F.normalize(before, dim=2).transpose(1, 2) - self.threshold)
        alike = alike.masked_fill(torch.ones_like(alike).triu(1) > 0, -torch.inf)
        found = F.pad(alike, (1, 0)).softmax(dim=2)[..., 1:] @ e  # nothing, if no pair is alike
        return self.head(self.out(self.hidden(torch.cat([pair, found], dim=2)).relu()) + self.copy(found))


class Reading(nn.Module):
    """An encoder of token sequences, (n, T) -> (n, 32): how many tokens are alike, and what the first three mean together."""

    def __init__(self, vocabulary: int, width: int = 16) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.steps, self.count = nn.Linear(1, 16), nn.Linear(16, 16)
        self.hidden, self.meaning = nn.Linear(2 * width, 32), nn.Linear(32, 16)

    def forward(self, tokens: Tensor) -> Tensor:
        e = self.embed(tokens)
        unit = F.normalize(e, dim=2)
        alike = (unit @ unit.transpose(1, 2)).unsqueeze(3)  # (n, T, T, 1)
        pairs = torch.ones_like(alike[0, :, :, 0]).triu(1).unsqueeze(2)
        counted = self.count((self.steps(alike).relu() * pairs).sum((1, 2)))
        a, b, c = e[:, 0], e[:, 1], e[:, 2]
        meant = self.meaning(self.hidden(torch.cat([a + b + c, a * b + b * c + a * c], dim=1)).relu())
        return torch.cat([counted, meant], dim=1)


class Pooled(nn.Module):
    """One convolution, the largest value of each channel, and a linear head of two classes."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution, self.head = nn.Conv2d(1, width, 3, padding=1), nn.Linear(width, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.convolution(images).relu().amax((2, 3)))


def grouped_images(device) -> list[tuple[Tensor, Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    x, y, z = torch.randn(8, 1, 4, 4, generator=generator), torch.arange(8) % 2, torch.arange(8) // 4
    return [(x.to(device), y.to(device), z.to(device))]


def series(device) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(6, 10, generator=generator).to(device), (torch.arange(6) % 2).to(device)) for _ in range(2)]


def seeded(seed: int, make):
    """Build a network from a seed; the global random state stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


VALUES: dict[str, Any] = {
    "semantic_knowledge_ranking": {
        "encoder": lambda device: seeded(0, lambda: Reading(20, 4)).to(device),
        "questions": lambda device: torch.tensor([[1, 2], [3, 4], [1, 4]], device=device),
        "options": lambda device: torch.tensor([[[5], [6]], [[6], [5]], [[5], [7]]], device=device),
        "answers": lambda device: torch.tensor([0, 1, 1], device=device),
        "facts": lambda device: torch.arange(36).reshape(12, 3).remainder(19).add(1).to(device),
        "relevant": lambda device: torch.tensor([0, 1, -1], device=device),
    },
    "external_parametric_probe": {
        "network": lambda device: seeded(0, lambda: Recall(16, 4)).to(device),
        "base": lambda device: seeded(1, lambda: Recall(16, 4)).to(device).state_dict(),
        "facts": lambda device: [(4 + i, 12 + i % 4, 12 + i // 2) for i in range(8)],
        "tokens": lambda device: (0, 1, 2, 3),
    },
    "adaptive_discovering_merging": {
        "network": lambda device: seeded(1, lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))).to(device),
        "inputs": lambda device: torch.randn(20, 4, generator=torch.Generator().manual_seed(0)).to(device),
        "num_new": lambda device: 2,
    },
    "task_driven_reprogramming": {
        "network": lambda device: seeded(1, lambda: nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 5))).to(device),
        "student": lambda device: seeded(2, lambda: nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3), nn.Linear(3, 3))).to(device),
    },
    "graph_reprogramming": {
        "network": lambda device: seeded(0, lambda: GraphNetwork(4, 5, 4)).to(device),
        "features": lambda device: torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).to(device),
        "adjacency": lambda device: (1 - torch.eye(6)).to(device),
        "targets": lambda device: torch.tensor([0, 1, 0, 1, -1, 0], device=device),
    },
    "speech_reprogramming": {
        "encoder": lambda device: speech_encoder(0, 4, 6).to(device),
        "batches": spoken,
    },
    "fairness_reprogramming": {
        "network": lambda device: seeded(0, lambda: Pooled(4)).to(device),
        "batches": grouped_images,
        "mask": lambda device: (torch.arange(16) % 4 == 0).float().reshape(1, 4, 4).to(device),
    },
    "voice2series": {
        "network": lambda device: seeded(0, lambda: Speech(4, 3)).to(device),
        "batches": series,
        "length": lambda device: 40,
    },
    "latent_dim": lambda device: 3,
    "generators": lambda device: [seeded(s, lambda: Conditional(3, 2, 4)).to(device) for s in (1, 2)],
    "discriminators": lambda device: [seeded(s, lambda: Conditional(2, 1, 4)).to(device) for s in (3, 4)],
}
