"""The way from a deep network to a shallow one that was given its depth."""

from __future__ import annotations

import torch

from docs.figures.figure import Figure, Run, points
from docs.figures.toys import Networks, generator
from reference_impls.alignment.clafusion import clafusion
from reference_impls.core import toy_zoo
from reference_impls.core.permutation import layer_activations, permutation_spec

FIGURE = Figure(
    title="Test loss from a network of four layers to one of two layers",
    setting=(
        "A perceptron of three hidden layers and one of a single hidden layer, 64 units each, trained on the digits for "
        "150 steps; the shallow one is given two identity layers. Activations of 500 training examples."
    ),
    x="share of the shallow network, t",
    y="test loss",
    reading="With the layers and then the units aligned, the two can be fused; deepening alone leaves a hill.",
)


def measure(seed: int) -> Run:
    task = toy_zoo.digits(flat=True)

    def train(sizes, seed):
        network = toy_zoo.MLP(sizes).eval()
        model = toy_zoo.train(network, None, task.train, num_steps=150, lr=3e-3, generator=generator(seed))
        spec = permutation_spec(network, task.train[0][:2])
        of = layer_activations(spec, network, model, task.train[0][:500])
        return network, model, spec, {layer: value.relu() for layer, value in of.items()}

    network, deep, spec, of_deep = train((64, 64, 64, 64, 10), seed)
    _, shallow, _, of_shallow = train((64, 64, 10), seed + 50)
    deepened = {f"layers.{i}.{k}": v for i in (1, 2) for k, v in (("weight", torch.eye(64)), ("bias", torch.zeros(64)))}
    deepened |= {f"layers.{i}.{k}": shallow[f"layers.{j}.{k}"] for i, j in ((0, 0), (3, 1)) for k in ("weight", "bias")}
    deepened = {key: deepened[key] for key in deep}

    pair = Networks(network, (deep, deepened), task, spec)
    fused = clafusion(deep, shallow, of_deep, of_shallow, t=1.0)
    lines = {"deepened only": pair.line(), "CLAFusion": pair.line(fused)}
    half = clafusion(deep, shallow, of_deep, of_shallow)
    table = {
        "Barrier": {name: line.barrier.item() for name, line in lines.items()},
        "Accuracy half way": {
            "deepened only": pair.accuracy({key: (deep[key] + deepened[key]) / 2 for key in deep}),
            "CLAFusion": pair.accuracy(half),
        },
    }
    return Run({name: points(line) for name, line in lines.items()}, table)
