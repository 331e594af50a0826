"""A router that reads the input decides how much of each fine-tuned model goes into the layer."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import clusters, mlp, trained
from reference_impls.mixing.wemoe import wemoe

CONTROLS = [Control("steps", 0, 120, 60, 10), Control("scaling_coef", 0.0, 1.0, 0.3, 0.1)]


def demo(steps, scaling_coef):
    network, tasks = mlp(2, 8, 2), [clusters(task, tasks=2) for task in range(2)]
    base = trained(network, tasks, steps=30)
    finetuned = [trained(network, task, start=base) for task in tasks]
    mixed = wemoe(network, base, finetuned, tasks, ["2"], scaling_coef=scaling_coef, num_steps=steps, lr=0.02)
    with torch.no_grad():
        weights = [mixed[2].mixture(mixed[:2](inputs)).mean(dim=0) for inputs, _ in tasks]
    return Picture(
        title="How much of each task vector the last layer takes, by the task that the input comes from",
        reading="The router starts with the same share of both for every input, which is task arithmetic, and learns "
        "without labels to tell inputs apart.",
        x="task vector",
        y="weight",
        kind="bar",
        at=["task 1", "task 2"],
        series={"inputs of task 1": weights[0], "inputs of task 2": weights[1]},
    )
