"""The line between networks after matching in the metric of the inputs."""

from __future__ import annotations

import torch

from docs.figures.figure import Figure, Run, points
from docs.figures.toys import Networks, generator, networks
from reference_impls.alignment.covariance_matching import covariance_matching
from reference_impls.alignment.weight_matching import weight_matching
from reference_impls.core import toy_zoo
from reference_impls.core.permutation import permutation_spec
from reference_impls.core.statistics import gram_matrices

FIGURE = Figure(
    title="Test loss on the line between two perceptrons that have weights for inputs that never vary",
    setting=(
        "Two perceptrons of the toy zoo, trained on the digits from different initialisations, widened by 16 inputs that "
        "are always 0 and whose weights are drawn at random."
    ),
    x="position on the line",
    y="test loss",
    reading=(
        "The weights of dead inputs mislead plain weight matching; in the metric of the inputs they count nothing. Where "
        "nothing misleads, on residual networks, covariances gain nothing."
    ),
)


def measure(seed: int) -> Run:
    curves, table = {}, {}
    pairs = {"Barrier, with dead inputs": with_dead_inputs(seed), "Barrier, residual network": networks("residual", seed)}
    for name, pair in pairs.items():
        grams = [gram_matrices(pair.network, model, [pair.task.train]) for model in pair.models]
        lines = {
            "as they are": pair.line(),
            "after weight matching": pair.line(pair.moved(weight_matching(*pair.models, pair.spec))),
            "after covariance matching": pair.line(pair.moved(covariance_matching(*pair.models, pair.spec, grams))),
        }
        curves = curves or {label: points(line) for label, line in lines.items()}
        table[name] = {label: line.barrier.item() for label, line in lines.items()}
    return Run(curves, table)


def with_dead_inputs(seed: int, count: int = 16) -> Networks:
    pair, first = networks("mlp", seed), "layers.0.weight"
    network = toy_zoo.MLP((64 + count, *(len(pair.models[0][f"layers.{i}.bias"]) for i in range(3)))).eval()
    models = [
        {**m, first: torch.cat([m[first], torch.randn(len(m[first]), count, generator=generator(10 * seed + i))], dim=1)}
        for i, m in enumerate(pair.models)
    ]
    splits = [(torch.cat([x, torch.zeros(len(x), count)], dim=1), y) for x, y in (pair.task.train, pair.task.val, pair.task.test)]
    task = toy_zoo.Task(pair.task.name, *splits)
    return Networks(network, tuple(models), task, permutation_spec(network, splits[0][0][:2]))
