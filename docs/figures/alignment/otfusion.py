"""The way from one network to another transported onto it."""

from __future__ import annotations

from docs.figures.figure import Figure, Run, points
from docs.figures.toys import ARCHITECTURES, MATCHING, READING, networks, recovery, trained
from reference_impls.alignment.otfusion import otfusion, transport_maps

FIGURE = Figure(
    title="Test loss from one network to the other, as it is and transported",
    setting=MATCHING + " Costs from weights; t is the share of the second network.",
    x="share of the second network, t",
    y="test loss",
    reading=READING,
)


def measure(seed: int) -> Run:
    curves, table = {}, {}
    for architecture, name in ARCHITECTURES.items():
        pair = networks(architecture, seed)
        end = otfusion(*pair.models, pair.spec, t=1.0)
        lines = {"as they are": pair.line(), "transported": pair.line(end)}
        if architecture == "conv":
            lines["transported, with REPAIR"] = pair.repaired_line(end)
            curves = {label: points(line) for label, line in lines.items()}
        table[f"Barrier, {name}"] = {label: line.barrier.item() for label, line in lines.items()}
    return Run(curves, table)


def recover() -> dict[str, list[int]]:
    def match(a, b, spec, *_):
        return {name: plan.argmax(dim=1) for name, plan in transport_maps(a, b, spec).items()}

    return recovery(match, trained())
