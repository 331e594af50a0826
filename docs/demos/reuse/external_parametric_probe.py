"""Probing what a language model knows from outside and from inside: facts are injected, told, or both, and asked for."""

import torch
from torch import nn

from docs.demos.picture import Control, Picture
from docs.demos.toys import drawn, generator
from reference_impls.reuse.external_parametric_probe import external_parametric_probe

CONTROLS = [Control("inject_steps", 0, 40, 30, 10), Control("tune_steps", 0, 40, 20, 10)]


class Pairs(nn.Module):
    """Expects the next token by the last two: enough to know facts by heart, too little to look them up."""

    def __init__(self, size):
        super().__init__()
        self.embed, self.hidden, self.out = nn.Embedding(size, 8), nn.Linear(16, 24), nn.Linear(24, size)

    def forward(self, tokens):
        e = self.embed(tokens)
        before = torch.cat([torch.zeros_like(e[:, :1]), e[:, :-1]], dim=1)
        return self.out(self.hidden(torch.cat([before, e], dim=2)).tanh())


def demo(inject_steps, tune_steps):
    network, facts = Pairs(20), [(4 + i, 12 + i % 4, 16 + i // 2) for i in range(8)]
    found = external_parametric_probe(
        network, drawn(network), facts, tokens=(0, 1, 2, 3), inject_steps=inject_steps, tune_steps=tune_steps, lr=0.03,
        batch_size=16, generator=generator(0),
    )  # fmt: skip
    return Picture(
        title="Share of values that are right, by where the knowledge is: told (S1), half told (S2), injected (S3), nowhere (S4)",
        reading=f"This model remembers {found.memory:.0%} of what was injected, but it sees two tokens only, so that it "
        "cannot look up what it is told; a real one can do both.",
        x="scenario",
        y="share",
        kind="bar",
        at=list(found.coverage),
        series={"values right": list(found.coverage.values())},
    )
