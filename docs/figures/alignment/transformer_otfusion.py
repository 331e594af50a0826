"""The way from one transformer to another transported onto it."""

from __future__ import annotations

from docs.figures.figure import Figure, Run, points
from docs.figures.toys import networks
from reference_impls.alignment.transformer_otfusion import transformer_otfusion
from reference_impls.core.permutation import layer_activations

FIGURE = Figure(
    title="Test loss between two transformers: plain, with hard and with soft transport",
    setting=(
        "Two vision transformers of the toy zoo, trained on the digits from different initialisations; activations of 100 "
        "training examples. Hard: no entropy. Soft: the default entropy."
    ),
    x="share of the second network, t",
    y="test loss",
    reading=(
        "Soft maps leave less of a hill than hard ones half way. Neither keeps the second network as it was: where a "
        "residual connection joins two maps, the average of both is used."
    ),
)


def measure(seed: int) -> Run:
    pair = networks("vit", seed)
    inputs = pair.task.train[0][:100]
    of = [layer_activations(pair.spec, pair.network, model, inputs) for model in pair.models]
    soft, hard = (transformer_otfusion(*pair.models, *of, pair.spec, t=1.0, reg=reg) for reg in (0.1, 0.0))
    lines = {"as they are": pair.line(), "hard transport": pair.line(hard), "soft transport": pair.line(soft)}
    ends = (lines["as they are"].losses[0] + lines["as they are"].losses[-1]) / 2
    table = {
        "Loss half way above the mean of both networks": {name: (line.losses[10] - ends).item() for name, line in lines.items()},
        "Loss at t = 1": {name: line.losses[-1].item() for name, line in lines.items()},
    }
    return Run({name: points(line) for name, line in lines.items()}, table)
