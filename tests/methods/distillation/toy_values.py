"""Small values for the inputs of this chapter: name -> make(device), or method -> {name -> make(device)}."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from reference_impls.core.toy_zoo import Tokenizer, initialise
from reference_impls.core.toy_zoo.networks import RecurrentLM
from reference_impls.distillation.gnn_amalgamation import GraphAttentionNetwork
from tests.methods.distillation.detectors import detector, scenes

LETTERS, PAIRS = Tokenizer(("a", "b", "c")), Tokenizer(("ab", "c", "b", "a"))


def language_model(vocabulary: int, seed: int, device) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        network = RecurrentLM(vocabulary, width=4)
    network.load_state_dict(initialise(network, torch.Generator().manual_seed(seed)))
    return network.to(device)


def staged(widths: tuple[int, ...], seed: int, device) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(*[nn.Linear(a, b) for a, b in zip(widths, widths[1:])]).to(device)


def graph_network(widths: tuple[int, ...], seed: int, device) -> nn.Module:
    return GraphAttentionNetwork(widths, 2, torch.Generator().manual_seed(seed)).to(device)


def tiny_graph(features: int, device) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.linspace(-1, 1, 3 * features).reshape(3, features)
    return x.to(device), torch.tensor([[0, 1, 2, 1], [0, 0, 1, 2]], device=device)


class PixelDecoder(nn.Module):
    """Scores of a mask: the features weighed by a function of the prompt."""

    def __init__(self) -> None:
        super().__init__()
        self.weigh = nn.Linear(2, 3)

    def forward(self, features, prompts):
        return (self.weigh(prompts)[:, :, None, None] * features).sum(dim=1)


def seeded(make, seed: int, device) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make().to(device)


def images(seed: int, device) -> torch.Tensor:
    return torch.randn(4, 2, 4, 4, generator=torch.Generator().manual_seed(seed)).to(device)


VALUES: dict[str, Any] = {
    "layerwise_amalgamation": {
        "networks": lambda device: [staged((4, 5, 3), seed, device) for seed in (1, 2)],
        "student": lambda device: staged((4, 6, 6), 3, device),
    },
    "common_feature_learning": {
        "networks": lambda device: [staged((4, 5, 3), 1, device), staged((4, 7, 6, 2), 2, device)],
        "student": lambda device: staged((4, 6, 5), 3, device),
    },
    "intertwined_amalgamation": {
        "networks": lambda device: [staged((4, 5, 5, 3), seed, device) for seed in (1, 2)],
        "student": lambda device: staged((4, 5, 5), 3, device),
    },
    "filtered_amalgamation": {
        "networks": lambda device: [staged((4, 5, 5, 3), seed, device) for seed in (1, 2)],
        "student": lambda device: staged((4, 5, 5), 3, device),
        "tasks": lambda device: [[0, 2], [1]],
    },
    "adaptive_amalgamation": {
        "networks": lambda device: [staged((4, 5, 3), 1, device), staged((4, 6, 2), 2, device)],
        "components": lambda device: [staged((4, 4, 2), 4, device), staged((4, 4, 1), 5, device)],
        "student": lambda device: staged((4, 6, 3), 3, device),
        "sub_tasks": lambda device: [[(0, (0, 1)), (1, (0, 1))], [(0, (2,))]],
    },
    "mergedistill": {
        "networks": lambda device: [language_model(4, 1, device), language_model(5, 2, device)],
        "student": lambda device: language_model(6, 3, device),
        "corpora": lambda device: [["abc", "cab"], ["abca", "b"]],
        "tokenizers": lambda device: [Tokenizer((*t.pieces, "[MASK]")) for t in (LETTERS, PAIRS)],
    },
    "sam_clip": {
        "encoder": lambda device: seeded(lambda: nn.Conv2d(2, 3, 3, padding=1), 1, device),
        "decoder": lambda device: seeded(PixelDecoder, 2, device),
        "network": lambda device: seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(32, 5)), 3, device),
        "head": lambda device: seeded(lambda: nn.Conv2d(3, 5, 1), 4, device),
        "prompted_batches": lambda device: [(images(5, device), torch.full((4, 2), 0.5, device=device))],
        "batches": lambda device: [images(6, device), images(7, device)],
    },
    "parametric_knowledge_transfer": {
        "network": lambda device: staged((4, 6, 3), 1, device),
        "student": lambda device: staged((4, 5, 3), 3, device),
        "seeds": lambda device: [(torch.eye(4, device=device), torch.tensor([0, 1, 2, 0], device=device))],
    },
    "ofa_kd": {"student": lambda device: staged((4, 6, 5, 3), 3, device)},
    "fusechat": {
        "network": lambda device: language_model(3, 0, device),
        "sources": lambda device: [language_model(3, 1, device), language_model(4, 2, device)],
        "dialogues": lambda device: [("ab", "cab"), ("c", "cabc"), ("b", "a")],
        "tokenizer": lambda device: LETTERS,
        "source_tokenizers": lambda device: [LETTERS, PAIRS],
    },
    "expert_brainstorming": {
        "networks": lambda device: [staged((4, 5, 3), 1, device), staged((4, 3), 2, device)],
    },
    "knowledge_factorization": {
        "network": lambda device: staged((4, 5, 4), 1, device),
        "common": lambda device: staged((4, 3), 2, device),
        "specific": lambda device: [staged((4, 6), seed, device) for seed in (3, 4)],
        "batches": lambda device: [torch.linspace(-1, 1, 24, device=device).reshape(6, 4)],
    },
    "gnn_amalgamation": {
        "networks": lambda device: [graph_network((2, 3, 2), 1, device), graph_network((4, 3), 2, device)],
        "student": lambda device: graph_network((4, 3, 5), 3, device),
        "graphs": lambda device: [[tiny_graph(2, device)], [tiny_graph(4, device)]],
    },
    "sequence_task_amalgamation": {
        "networks": lambda device: [detector(2, seed, width=4).to(device) for seed in (1, 2)],
        "student": lambda device: detector(4, 3, width=4, streams=2).to(device),
        "batches": lambda device: list(scenes(4, 0)[0].to(device).split(2)),
    },
    "dual_gan_amalgamation": {
        "networks": lambda device: [staged((4, 5, 3), 1, device), staged((4, 5, 2), 2, device)],
        "student": lambda device: staged((4, 5, 5), 3, device),
        "input_shape": lambda device: (4,),
    },
    "soka_net": {
        "networks": lambda device: [staged((4, 5, 6, 3), 1, device), staged((4, 5, 6, 2), 2, device)],
        "student": lambda device: staged((4, 5, 6), 3, device),
        "heads": lambda device: [staged((6, 3), 4, device), staged((6, 2), 5, device)],
    },
    "fusellm": {
        "network": lambda device: language_model(3, 0, device),
        "sources": lambda device: [language_model(3, 1, device), language_model(4, 2, device)],
        "texts": lambda device: ["abcab", "ccabc", "ba"],
        "tokenizer": lambda device: LETTERS,
        "source_tokenizers": lambda device: [LETTERS, PAIRS],
    },
}
