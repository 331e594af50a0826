"""The way from one network to another carried over by canonical correlations."""

from __future__ import annotations

from docs.figures.figure import Figure, Run, points
from docs.figures.toys import networks
from reference_impls.alignment.activation_matching import activation_matching
from reference_impls.alignment.cca_merge import cca_merge

FIGURE = Figure(
    title="Test loss on the line between two perceptrons: permuted, and carried over by canonical correlations",
    setting=(
        "Perceptrons of the toy zoo, trained on the digits from different initialisations; activations of 500 training "
        "examples. Drawn: 32 units wide."
    ),
    x="share of the second network, t",
    y="test loss",
    reading=(
        "A map that mixes units leaves a lower hill than the best permutation of the same activations, at the price of an "
        "end that is no longer exactly the second network."
    ),
)


def measure(seed: int) -> Run:
    curves, table = {}, {}
    for width in (256, 32):
        pair = networks("mlp", seed, width=width)
        activations = pair.activations(written=False)
        carried = cca_merge(*pair.models, *activations, pair.spec, t=1.0)
        permuted = activation_matching(*activations, pair.spec, similarity="correlation")
        lines = {
            "as they are": pair.line(),
            "after activation matching": pair.line(pair.moved(permuted)),
            "carried over by CCA": pair.line(carried),
        }
        curves = {label: points(line) for label, line in lines.items()}
        table[f"Barrier, {width} units wide"] = {label: line.barrier.item() for label, line in lines.items()}
        table[f"Test loss half way, {width} units wide"] = {label: line.losses[10].item() for label, line in lines.items()}
    return Run(curves, table)
