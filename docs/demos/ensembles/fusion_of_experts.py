"""Fusion of experts: a small network reads the probabilities of all experts and learns whom to believe."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import clusters, mlp, trained
from reference_impls.ensembles.fusion_of_experts import fusion_of_experts
from reference_impls.ensembles.logit_ensemble import logit_ensemble

CONTROLS = [Control("num_steps", 0, 80, 60, 10), Control("width", 4, 32, 16, 4)]


def demo(num_steps, width):
    tasks, experts = [clusters(task) for task in range(3)], []
    for number, task in enumerate(tasks):
        experts.append(mlp(2, 8, 2))
        experts[-1].load_state_dict(trained(experts[-1], task, seed=number, steps=40))
    fused = fusion_of_experts(experts, tasks, width=width, num_steps=num_steps, lr=0.03)
    ways = {"mean of logits": logit_ensemble(experts), "fused": fused}
    error = lambda net, task: torch.nn.functional.cross_entropy(net(task[0]), task[1])
    with torch.no_grad():
        series = {name: [error(net, task) for task in tasks] for name, net in ways.items()}
    return Picture(
        title="Loss on three tasks, each of which one expert knows",
        reading="Averaging lets experts speak where they know nothing; the fuser has seen whose answers to trust when they "
        "disagree.",
        x="task",
        y="loss",
        kind="bar",
        at=["task 1", "task 2", "task 3"],
        series=series,
    )
