"""FuseLLM: a language model learns from others with other tokens, text by text from the one that knows it best."""

import torch
from torch import nn

from docs.demos.picture import Control, Picture
from docs.demos.toys import generator
from reference_impls.distillation.fusellm import fusellm

CONTROLS = [Control("lm_weight", 0.0, 1.0, 0.5, 0.1), Control("num_steps", 0, 60, 30, 10)]


class Bigrams(nn.Module):
    """A language model that expects the next token by the last one."""

    def __init__(self, size, seed=0):
        super().__init__()
        self.table = nn.Parameter(0.1 * torch.randn(size, size, generator=generator(seed)))

    def forward(self, tokens):
        return self.table[tokens]


class Pieces:
    """A tokenizer that takes the longest piece that fits."""

    def __init__(self, *pieces):
        self.pieces = pieces

    def encode(self, text):
        tokens = []
        while text:
            piece = max((p for p in self.pieces if text.startswith(p)), key=len)
            tokens.append(self.pieces.index(piece))
            text = text[len(piece) :]
        return tokens


def taught(texts, tokenizer, seed=0, steps=60):
    model = Bigrams(len(tokenizer.pieces), seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    data = [torch.tensor(tokenizer.encode(text)) for text in texts]
    for _ in range(steps):
        optimizer.zero_grad()
        sum(nn.functional.cross_entropy(model(ids[:-1]), ids[1:]) for ids in data).backward()
        optimizer.step()
    return model


def demo(lm_weight, num_steps):
    letters, pairs = Pieces("a", "b", "c"), Pieces("ab", "a", "b", "c")
    known, texts = ["abcabcabcabc"] * 2, ["abcabca", "cabcabc"]
    sources = [taught(known, pairs, 1)]
    target = Bigrams(3)
    options = {"tokenizer": letters, "source_tokenizers": [pairs], "lr": 0.05, "generator": generator(0)}
    fused = fusellm(target, sources, texts, lm_weight=lm_weight, num_steps=num_steps, **options)
    with torch.no_grad():
        before, after = target.table.softmax(dim=1), fused.table.softmax(dim=1)
    return Picture(
        title="Probability of the next letter before and after, given the last one",
        reading="The source writes abcabc in tokens of its own, one of them of two letters; aligned with the target's "
        "letters, its expectations teach as the text does.",
        x="next letter",
        y="",
        kind="heat",
        at=["a", "b", "c"],
        series={
            f"{when}, {letter}": row for when, rows in (("before", before), ("after", after)) for letter, row in zip("abc", rows)
        },
    )
