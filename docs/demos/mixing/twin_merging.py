"""Twin-Merging: one shared expert, and what only one task needs, compressed, added for the inputs that need it."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import clusters, loss, mlp, trained
from reference_impls.mixing.twin_merging import twin_merging
from reference_impls.task_vectors.task_arithmetic import task_arithmetic

CONTROLS = [Control("rank", 1, 4, 2, 1), Control("num_steps", 0, 60, 40, 10), Control("scaling_coef", 0.0, 0.6, 0.3, 0.1)]


def demo(rank, num_steps, scaling_coef):
    network, tasks = mlp(2, 12, 2), [clusters(task) for task in range(3)]
    base = trained(network, tasks, steps=10)
    finetuned = [trained(network, task, start=base, steps=40, lr=0.03) for task in tasks]
    shared = task_arithmetic(base, finetuned, scaling_coef=scaling_coef)
    belongs = [(inputs, torch.full((len(inputs),), t, dtype=torch.long)) for t, (inputs, _) in enumerate(tasks)]
    twin = twin_merging(
        network, base, finetuned, belongs, rank=rank, scaling_coef=scaling_coef, num_steps=num_steps, lr=0.03,
        features_fn=lambda inputs: inputs,
    )  # fmt: skip
    error = lambda outputs, targets: torch.nn.functional.cross_entropy(outputs, targets)
    with torch.no_grad():
        mixed = [error(twin(inputs), targets) for inputs, targets in tasks]
    return Picture(
        title="Loss on three tasks: the shared expert, and the same with exclusive knowledge added by a router",
        reading="With no steps the router adds the same share of all; once it knows which task an input is of, a compressed "
        "difference is enough to come near the task's own model.",
        x="task",
        y="loss",
        kind="bar",
        at=["task 1", "task 2", "task 3"],
        series={
            "shared": [loss(network, shared, task) for task in tasks],
            "Twin-Merging": mixed,
            "own model": [loss(network, own, task) for own, task in zip(finetuned, tasks)],
        },
    )
