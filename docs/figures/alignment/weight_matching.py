"""The line between networks before and after weight matching."""

from __future__ import annotations

from docs.figures.figure import Figure, Run
from docs.figures.toys import MATCHING, READING, deep, generator, matching, recovery, trained
from reference_impls.alignment.weight_matching import weight_matching

FIGURE = Figure(
    title="Test loss on the line between two networks, before and after weight matching",
    setting=MATCHING,
    x="position on the line",
    y="test loss",
    reading=READING,
)


def measure(seed: int) -> Run:
    return matching(seed, lambda pair, seed: weight_matching(*pair.models, pair.spec, generator=generator(seed)))


def recover() -> dict[str, list[int]]:
    return recovery(lambda a, b, spec, _, seed: weight_matching(a, b, spec, generator=generator(seed)), {**trained(), **deep()})
