"""Adaptive amalgamation: for every input the teacher that is least in doubt teaches the student."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import generator, moons, staged, teacher
from reference_impls.distillation.adaptive_amalgamation import adaptive_amalgamation

CONTROLS = [Control("num_steps", 10, 60, 40, 10), Control("noise", 0.1, 0.3, 0.15, 0.05)]


def demo(num_steps, noise):
    inputs, targets = moons(noise=noise)
    left = inputs[:, 0] < 0
    sources = [teacher((inputs[half], targets[half]), seed) for seed, half in enumerate((left, ~left))]
    error = lambda network: torch.nn.functional.cross_entropy(network(inputs), targets)
    ways = {"left half only": sources[0], "right half only": sources[1]}
    for select, name in (("all", "from both alike"), ("entropy", "from the surer one")):
        ways[name] = adaptive_amalgamation(
            sources, [staged(2, 8, 2)], staged(2, 12, 2), [inputs], [[(0, [0, 1]), (1, [0, 1])]],
            select=select, common_width=8, num_steps=num_steps, lr=0.02, generator=generator(0),
        )  # fmt: skip
    with torch.no_grad():
        losses = [error(network) for network in ways.values()]
    return Picture(
        title="Loss on two moons of sources that know half of them, and of students that never saw a label",
        reading="Listening to the surer source for each input helps as far as doubt tells who knows. Here it does not: these "
        "sources are as sure where they were never trained.",
        x="",
        y="loss",
        kind="bar",
        at=list(ways),
        series={"loss": losses},
    )
