"""The line between networks before and after matching in both spaces."""

from __future__ import annotations

from docs.figures.figure import Figure, Run
from docs.figures.toys import MATCHING, READING, generator, matching
from reference_impls.alignment.mudsc import mudsc

FIGURE = Figure(
    title="Test loss on the line between two networks, before and after matching in weights and activations",
    setting=MATCHING + " Activations of 500 training examples.",
    x="position on the line",
    y="test loss",
    reading=READING,
)


def measure(seed: int) -> Run:
    return matching(seed, lambda pair, seed: mudsc(*pair.models, *pair.activations(), pair.spec, generator=generator(seed)))
