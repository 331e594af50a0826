"""Partially linearised adapters: only the low-rank part of the network is expanded, and merged there."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import clusters, generator, loss, mlp, trained
from reference_impls.task_vectors.partial_linearization import partial_linearization
from reference_impls.task_vectors.task_arithmetic import task_arithmetic

CONTROLS = [Control("rank", 1, 4, 2, 1), Control("scaling_coef", 0.0, 1.5, 1.0, 0.1), Control("num_steps", 10, 60, 40, 10)]


def demo(rank, scaling_coef, num_steps):
    network, tasks = mlp(2, 16, 2), [clusters(task) for task in range(3)]
    base = trained(network, tasks, steps=10)
    finetuned = [trained(network, task, start=base, steps=num_steps, lr=0.03) for task in tasks]
    added = task_arithmetic(base, finetuned, scaling_coef=scaling_coef)
    batches = [[task] for task in tasks]
    linear = partial_linearization(
        network, base, batches, rank=rank, scaling_coef=scaling_coef, num_steps=num_steps, lr=0.03, generator=generator(0)
    )
    error = lambda outputs, targets: torch.nn.functional.cross_entropy(outputs, targets)
    with torch.no_grad():
        partial = [error(linear(inputs), targets) for inputs, targets in tasks]
    return Picture(
        title="Loss on every task after adding what all three learned",
        reading="The adapters train few weights, and in the tangent space; in a network this small they have little room, and "
        "the plain sum of whole task vectors does better on two of three tasks.",
        x="task",
        y="loss",
        kind="bar",
        at=["task 1", "task 2", "task 3"],
        series={
            "base": [loss(network, base, task) for task in tasks],
            "task arithmetic": [loss(network, added, task) for task in tasks],
            "linearised adapters": partial,
        },
    )
