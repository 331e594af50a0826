"""Distance of the interpolated network's features from the interpolated features, layer by layer."""

from __future__ import annotations

from docs.figures.figure import Figure, Run
from docs.figures.toys import as_networks, networks
from reference_impls.connectivity.llfc import llfc
from reference_impls.core import toy_zoo
from reference_impls.core.statistics import activations

FIGURE = Figure(
    title="How far the features half way are from half way between the features, by layer",
    setting=(
        "Perceptrons of the toy zoo: two fine-tuned from one base (connected) and two trained from different "
        "initialisations (strangers); one minus the cosine, mean over the test digits. The first layer is linear in its "
        "weights, so its features are too."
    ),
    x="layer",
    y="cosine distance",
    reading=(
        "Between connected networks the features are linear too: orders of magnitude below the distance of the networks "
        "themselves."
    ),
    kind="dot",
    log_y=True,
)


def measure(seed: int) -> Run:
    curves, rows = {}, {}
    families = {"strangers": networks("mlp", seed), "connected": as_networks(toy_zoo.soup("mlp", seed, count=2))}
    for name, family in families.items():
        inputs = family.task.test[0]
        found = llfc(*family.models, lambda model: activations(family.network, model, inputs))  # noqa: B023
        layers = [str(i + 1) for i in range(1, len(found.layers))]
        curves[f"{name}: both networks"] = layers, found.baseline[1:].tolist()
        curves[f"{name}: half way"] = layers, found.interpolated[1:].tolist()
        line = family.line()
        rows[name] = {
            "Loss barrier": line.barrier.item(),
            "Distance in the last layer": found.interpolated[-1].item(),
            "Distance of both networks there": found.baseline[-1].item(),
        }
    table = {row: {name: values[row] for name, values in rows.items()} for row in rows["strangers"]}
    return Run(curves, table)
