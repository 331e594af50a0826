"""The excess loss when one layer is averaged, or all up to one."""

from __future__ import annotations

from docs.figures.figure import Figure, Run
from docs.figures.toys import networks
from reference_impls.connectivity.layerwise_barrier import layerwise_barrier

FIGURE = Figure(
    title="Test loss above the mean of both networks when layers are averaged",
    setting=(
        "Two residual networks of the toy zoo, trained on the digits from different initialisations; mean over the "
        "network that the other layers are taken from."
    ),
    x="layer",
    y="test loss above both",
    reading="No single layer does the harm of all together.",
    kind="bar",
)


def measure(seed: int) -> Run:
    pair = networks("residual", seed)
    found = layerwise_barrier(*pair.models, pair.loss)
    short = [name.replace("blocks.", "").replace("expand", "in").replace("contract", "out") for name in found.layers]
    curves = {
        "this layer alone": (short, found.single.mean(dim=1).tolist()),
        "this layer and all before it": (short, found.from_input.mean(dim=1).tolist()),
    }
    table = {"Barrier": {"worst single layer": found.single.mean(dim=1).max().item(), "all layers": found.full.item()}}
    return Run(curves, table)
