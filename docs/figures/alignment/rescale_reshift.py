"""The loss of a merged and of a pruned network, with each part of the correction."""

from __future__ import annotations

from docs.figures.figure import Figure, Run
from docs.figures.toys import generator, networks
from reference_impls.alignment.rescale_reshift import rescale_reshift
from reference_impls.alignment.weight_matching import weight_matching
from reference_impls.core.paths import interpolate
from reference_impls.core.selection import keep_largest

FIGURE = Figure(
    title="Test loss of a merged and of a pruned network, with each part of the correction",
    setting=(
        "Merged: the average of two convolutional networks of the toy zoo after weight matching. Pruned: a perceptron of "
        "which a tenth of the hidden weights is kept. Statistics of 1,000 training examples."
    ),
    x="what is corrected",
    y="test loss",
    reading="The scale matters most; the means alone help after merging and harm after pruning.",
    kind="bar",
)


def measure(seed: int) -> Run:
    pair = networks("conv", seed)
    end = pair.moved(weight_matching(*pair.models, pair.spec, generator=generator(seed)))
    merged = interpolate(pair.models[0], end, 0.5)
    found = rescale_reshift(pair.network, merged, [pair.models[0], end], pair.spec, [pair.task.train])

    single = networks("mlp", seed)
    dense = single.models[0]
    pruned = {k: keep_largest(v, v.numel() // 10) if v.dim() > 1 and k != "layers.2.weight" else v for k, v in dense.items()}
    brought_back = rescale_reshift(single.network, pruned, [dense], single.spec, [single.task.train])

    parts = ["nothing", "means", "scale", "both"]
    losses = {
        "merged": [pair.loss(m).item() for m in (merged, found.reshifted, found.rescaled, found.both)],
        "pruned": [single.loss(m).item() for m in (pruned, brought_back.reshifted, brought_back.rescaled, brought_back.both)],
    }
    table = {f"Test loss, {name}": dict(zip(parts, values)) for name, values in losses.items()}
    return Run({name: (parts, values) for name, values in losses.items()}, table)
