"""The line between networks before and after matching their activations."""

from __future__ import annotations

from docs.figures.figure import Figure, Run
from docs.figures.toys import MATCHING, READING, matching, recovery, trained
from reference_impls.alignment.activation_matching import activation_matching
from reference_impls.core import toy_zoo
from reference_impls.core.permutation import unit_activations

FIGURE = Figure(
    title="Test loss on the line between two networks, before and after activation matching",
    setting=MATCHING + " Correlations of 500 training examples, before the nonlinearity.",
    x="position on the line",
    y="test loss",
    reading=READING,
)


def measure(seed: int) -> Run:
    return matching(seed, lambda pair, seed: activation_matching(*pair.activations(), pair.spec, similarity="correlation"))


def recover() -> dict[str, list[int]]:
    def match(a, b, spec, network, seed):
        inputs = toy_zoo.digits(flat=isinstance(network, (toy_zoo.MLP, toy_zoo.ResidualNet))).train[0][:200]
        return activation_matching(*(unit_activations(spec, network, m, inputs, written=True) for m in (a, b)), spec)

    return recovery(match, trained())
