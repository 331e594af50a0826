"""The error barrier between two runs that share their first k steps."""

from __future__ import annotations

import torch

from docs.figures.figure import Figure, Run
from docs.figures.toys import generator
from reference_impls.connectivity.instability_analysis import instability_analysis
from reference_impls.core import toy_zoo

FIGURE = Figure(
    title="Error barrier between two runs, by the step at which they part",
    setting=(
        "A perceptron of 24 units, trained on the digits for 300 steps at learning rate 0.02 with batches of 16; the two "
        "runs differ in the order of the examples."
    ),
    x="step at which the runs part",
    y="test error above the ends",
    reading=(
        "After the first few steps most of the barrier is gone: by then it is settled which region the training ends in."
    ),
)
STEPS = (0, 10, 25, 50, 75, 150)


def measure(seed: int) -> Run:
    task, network = toy_zoo.digits(flat=True), toy_zoo.build("mlp", 24)

    def train(model, start, stop, generator):
        return toy_zoo.train(network, model, task.train, num_steps=stop - start, lr=2e-2, batch_size=16, generator=generator)

    found = instability_analysis(
        toy_zoo.initialise(network, generator(seed)),
        train,
        lambda model: 1 - torch.tensor(toy_zoo.accuracy(network, model, task.test)),
        split_steps=STEPS,
        num_steps=300,
        num_points=11,
        generator=generator(seed),
    )
    values = found.instability.tolist()
    table = {f"Parted at step {step}": {"error barrier": value} for step, value in zip(STEPS, values)}
    return Run({"error barrier": ([str(step) for step in STEPS], values)}, table)
