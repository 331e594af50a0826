"""The line between networks before and after Frank-Wolfe matching."""

from __future__ import annotations

from docs.figures.figure import Figure, Run
from docs.figures.toys import MATCHING, READING, deep, matching, recovery, trained
from reference_impls.alignment.frank_wolfe_matching import frank_wolfe_matching

FIGURE = Figure(
    title="Test loss on the line between two networks, before and after Frank-Wolfe matching",
    setting=MATCHING,
    x="position on the line",
    y="test loss",
    reading=READING,
)


def measure(seed: int) -> Run:
    return matching(seed, lambda pair, seed: frank_wolfe_matching(*pair.models, pair.spec))


def recover() -> dict[str, list[int]]:
    return recovery(lambda a, b, spec, *_: frank_wolfe_matching(a, b, spec), {**trained(), **deep()})
