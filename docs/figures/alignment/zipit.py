"""Accuracy of what two networks of different classes are merged into."""

from __future__ import annotations

from docs.figures.figure import Figure, Run
from docs.figures.toys import as_networks
from reference_impls.alignment.activation_matching import activation_matching
from reference_impls.alignment.repair import repair
from reference_impls.alignment.zipit import zipit
from reference_impls.core import toy_zoo
from reference_impls.core.paths import interpolate

FIGURE = Figure(
    title="Accuracy on all ten digits of two networks that know five each, merged into one",
    setting=(
        "A network of the toy zoo trained on the digits 0 to 4 and one trained on 5 to 9, from different initialisations; "
        "activations of 600 training examples; every merge is repaired. Zipped with repeat 0.1 and all merges allowed "
        "within a model."
    ),
    x="how they are merged",
    y="accuracy on ten classes",
    reading="Pairing every unit with one of the other network loses much; pooling the units of both keeps more.",
    kind="bar",
)


def measure(seed: int) -> Run:
    curves, table = {}, {}
    for architecture, name in (("mlp", "perceptron"), ("conv", "convolutional network")):
        pair = as_networks(toy_zoo.split_classes(architecture, seed))
        activations = pair.activations(600, written=False)
        permuted = activation_matching(*activations, pair.spec, similarity="correlation")
        ways = {
            "averaged": interpolate(*pair.models, 0.5),
            "permuted": interpolate(pair.models[0], pair.moved(permuted), 0.5),
            "zipped": zipit(*pair.models, *activations, pair.spec, repeat=0.1, within=1.0),
        }
        repaired = {way: repair(pair.network, m, m, pair.spec, [pair.task.train]) for way, m in ways.items()}
        accuracies = {"one alone": pair.accuracy(pair.models[0])} | {way: pair.accuracy(m) for way, m in repaired.items()}
        curves[name] = list(accuracies), list(accuracies.values())
        table[f"Accuracy, {name}"] = accuracies
    return Run(curves, table)
