"""PackLLM weighs language models by how little the prompt surprises each of them."""

import torch
from torch import nn

from docs.demos.picture import Control, Picture
from reference_impls.ensembles.packllm import packllm

CONTROLS = [Control("temperature", 0.1, 2.0, 1.0, 0.1), Control("share", 0.1, 0.9, 0.7, 0.1)]


class Constant(nn.Module):
    """A language model of two letters that always expects the same."""

    def __init__(self, p):
        super().__init__()
        self.p = torch.tensor([p, 1 - p])

    def forward(self, tokens):
        return self.p.log().expand(*tokens.shape, -1)


class Letters:
    pieces = ["a", "b"]

    def encode(self, text):
        return [self.pieces.index(letter) for letter in text]


def demo(temperature, share):
    expected = [0.1, 0.3, 0.5, 0.7, 0.9]
    prompt = "a" * round(10 * share) + "b" * round(10 * (1 - share))
    models = [Constant(p) for p in expected]
    ways = {
        "by perplexity": packllm(models, prompt, tokenizers=[Letters()] * 5, temperature=temperature),
        "optimised": packllm(models, prompt, tokenizers=[Letters()] * 5, mode="opt"),
    }
    return Picture(
        title=f"Weight of five models of the letter a, for a prompt in which {round(100 * share)} of 100 letters are a",
        reading="A low temperature leaves the model that knows the prompt best; the greedy search mixes models only where that "
        "lowers the perplexity further.",
        x="probability that the model gives to a",
        y="weight",
        kind="bar",
        at=[str(p) for p in expected],
        series={name: mixed.weights for name, mixed in ways.items()},
    )
