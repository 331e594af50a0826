"""Pairs of toy networks and the lines between them, as the figures of alignment and connectivity need them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from docs.figures.figure import Run, points
from reference_impls.alignment.repair import repair
from reference_impls.core import toy_zoo
from reference_impls.core.paths import LossCurve, interpolate, loss_along
from reference_impls.core.permutation import PermutationSpec, Permutations, apply_permutation, invert, permutation_spec
from reference_impls.core.permutation import random_permutations, unit_activations

StateDict = dict[str, Tensor]
ARCHITECTURES = {"mlp": "perceptron", "residual": "residual network", "conv": "convolutional network", "vit": "transformer"}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True)
class Networks:
    """Networks of one architecture, trained on the digits from their own initialisations."""

    network: nn.Module
    models: tuple[StateDict, ...]
    task: toy_zoo.Task
    spec: PermutationSpec

    def loss(self, model: StateDict, count: int | None = None) -> Tensor:
        """The test loss, or with a count the loss of so many training examples."""
        inputs, targets = self.task.test if count is None else self.task.train
        return toy_zoo.loss(self.network, model, (inputs[:count], targets[:count]))

    def accuracy(self, model: StateDict) -> float:
        return toy_zoo.accuracy(self.network, model, self.task.test)

    def along(self, path: Callable[[float], StateDict], num_points: int = 21) -> LossCurve:
        return loss_along(path, self.loss, num_points)

    def line(self, end: StateDict | None = None, num_points: int = 21) -> LossCurve:
        """The test loss from the first network to the second, or to another end."""
        return self.along(lambda t: interpolate(self.models[0], self.models[1] if end is None else end, t), num_points)

    def moved(self, permutations: Permutations) -> StateDict:
        return apply_permutation(self.spec, permutations, self.models[1])

    def activations(self, count: int = 500, written: bool = True) -> list[dict[str, Tensor]]:
        """The units of every network over training examples, before the nonlinearity if `written`."""
        inputs = self.task.train[0][:count]
        return [unit_activations(self.spec, self.network, model, inputs, written=written) for model in self.models]

    def repaired_line(self, end: StateDict, num_points: int = 11) -> LossCurve:
        def path(t: float) -> StateDict:
            return repair(self.network, self.models[0], end, self.spec, [self.task.train], t=t)

        return self.along(path, num_points)


@lru_cache
def networks(architecture: str, seed: int, *, count: int = 2, width: int | None = None) -> Networks:
    return as_networks(toy_zoo.independent(architecture, seed, count=count, width=width))


def as_networks(family: toy_zoo.Family) -> Networks:
    return Networks(family.network, tuple(family.models), family.task, permutation_spec(family.network, family.task.train[0][:2]))


def matching(
    seed: int, match: Callable[[Networks, int], Permutations], architectures: Iterable[str] = tuple(ARCHITECTURES)
) -> Run:
    """The line between convolutional networks before matching, after it, and with REPAIR; barriers of all architectures."""
    curves, table = {}, {}
    for architecture in architectures:
        pair = networks(architecture, seed)
        end = pair.moved(match(pair, seed))
        lines = {"as they are": pair.line(), "after matching": pair.line(end)}
        if architecture == "conv":
            lines["after matching and REPAIR"] = pair.repaired_line(end)
            curves = {name: points(line) for name, line in lines.items()}
        table[f"Barrier, {ARCHITECTURES[architecture]}"] = {name: line.barrier.item() for name, line in lines.items()}
    return Run(curves, table)


MATCHING = (
    "Two networks of the toy zoo, trained on the digits from different initialisations, and the straight line between them. "
    "Drawn: convolutional networks with batch normalisation."
)

READING = (
    "Matching leaves next to no hill between perceptrons and between residual networks. Between convolutional networks REPAIR, "
    "which measures their statistics anew, takes away much of what is left; between transformers much of it stays."
)


def recovery(
    match: Callable[[StateDict, StateDict, PermutationSpec, nn.Module, int], Permutations],
    subjects: dict[str, tuple[nn.Module, Callable[[int], StateDict]]],
    times: int = 100,
) -> dict[str, list[int]]:
    """How often `match` undoes a random permutation of a model, all layers right: [found, tried] by network."""
    out = {}
    for name, (network, make) in subjects.items():
        flat = isinstance(network, (toy_zoo.MLP, toy_zoo.ResidualNet))
        inputs = toy_zoo.digits(flat=flat).train[0]
        spec = permutation_spec(network, inputs[:2] if name != DEEP else torch.zeros(1, 4))
        found = 0
        for seed in range(times):
            model = make(seed)
            drawn = random_permutations(spec, generator(seed))
            answer = match(model, apply_permutation(spec, drawn, model), spec, network, seed)
            found += all(torch.equal(answer[key], wanted) for key, wanted in invert(drawn).items())
        out[name] = [found, times]
    return out


DEEP = "residual network of 12 blocks, untrained"


def trained() -> dict[str, tuple[nn.Module, Callable[[int], StateDict]]]:
    """One trained network of each architecture."""

    def always(model: StateDict) -> Callable[[int], StateDict]:
        return lambda seed: model

    families = {name: networks(architecture, 0) for architecture, name in ARCHITECTURES.items()}
    return {name: (family.network, always(family.models[0])) for name, family in families.items()}


def deep() -> dict[str, tuple[nn.Module, Callable[[int], StateDict]]]:
    """A network on which a matching can fail: many layers that share one set of units."""
    network = toy_zoo.ResidualNet(32, 32, 12, inputs=4, num_classes=2)
    return {DEEP: (network, lambda seed: toy_zoo.initialise(network, generator(seed)))}
