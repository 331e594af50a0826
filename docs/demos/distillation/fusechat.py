"""FuseChat: a pivot is tuned once with each source, and the copies are merged afterwards."""

import torch
from torch import nn

from docs.demos.picture import Control, Picture
from docs.demos.toys import generator
from reference_impls.distillation.fusechat import fusechat

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


def demo(lm_weight, num_steps):
    letters, pairs = Pieces("a", "b", "c"), Pieces("ab", "a", "b", "c")
    sources = [Bigrams(3, 1), Bigrams(4, 2)]
    with torch.no_grad():
        sources[0].table += torch.tensor([[0.0, 3.0, 0.0], [0.0, 0.0, 3.0], [3.0, 0.0, 0.0]])
        sources[1].table[:, 3] += 3.0  # expects a c after everything
    dialogues = [("abc", "abcabc"), ("ca", "bcabca")]
    options = {"tokenizer": letters, "source_tokenizers": [letters, pairs], "lr": 0.05, "generator": generator(0)}
    targets = fusechat(Bigrams(3), sources, dialogues, lm_weight=lm_weight, num_steps=num_steps, **options)
    rows = {"pivot": Bigrams(3)} | {f"with source {i}": target for i, target in enumerate(targets, 1)}
    with torch.no_grad():
        series = {name: model.table.softmax(dim=1).flatten() for name, model in rows.items()}
    return Picture(
        title="Probability of every pair of letters: the pivot, and its copies after learning with one source each",
        reading="The first source writes abcabc, the second, with a token of two letters, hopes for c; each copy learns "
        "the text with its own source, and the copies are there to be merged.",
        x="last letter, next letter",
        y="",
        kind="heat",
        at=[f"{a}{b}" for a in "abc" for b in "abc"],
        series=series,
    )
