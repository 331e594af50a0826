"""MergeDistill: teachers with vocabularies of their own teach one student that has the union of all."""

import torch
from torch import nn

from docs.demos.picture import Control, Picture
from docs.demos.toys import generator
from reference_impls.distillation.mergedistill import mergedistill

CONTROLS = [Control("kd_weight", 0.0, 1.0, 0.5, 0.1), Control("num_steps", 0, 60, 40, 10)]


class Around(nn.Module):
    """A masked language model that guesses a token from its left neighbour."""

    def __init__(self, table):
        super().__init__()
        self.table = nn.Parameter(table)

    def forward(self, tokens):
        left = torch.cat([tokens[:, :1], tokens[:, :-1]], dim=1)
        return self.table[left]


class Letters:
    def __init__(self, *pieces):
        self.pieces = (*pieces, "[MASK]")

    def encode(self, text):
        return [self.pieces.index(letter) for letter in text]


def demo(kd_weight, num_steps):
    tokenizers = [Letters("a", "b", "c"), Letters("c", "d", "e")]
    follows = torch.tensor([[0.1, 3.0, 0.2, 0.0], [0.2, 0.1, 3.0, 0.0], [3.0, 0.2, 0.1, 0.0], [0.0, 0.0, 0.0, 0.0]])
    teachers = [Around(follows.clone()) for _ in tokenizers]
    corpora = [["abcabc", "bcabca", "cabcab"] * 3, ["cdecde", "decdec", "ecdecd"] * 3]
    student = Around(torch.zeros(6, 6))
    learned = mergedistill(
        teachers, student, corpora, tokenizers=tokenizers, top_k=4, kd_weight=kd_weight, num_steps=num_steps, lr=0.05,
        mask_rate=0.4, generator=generator(0),
    )  # fmt: skip
    pieces = ["a", "b", "c", "mask", "d", "e"]
    with torch.no_grad():
        rows = learned.table.softmax(dim=1)
    return Picture(
        title="What the student expects after each letter",
        reading="The first teacher knows a, b and c, the second c, d and e; the student has both alphabets, and after c "
        "it has to know both continuations.",
        x="next",
        y="after",
        kind="heat",
        at=pieces,
        series={piece: row for piece, row in zip(pieces, rows) if piece != "mask"},
    )
