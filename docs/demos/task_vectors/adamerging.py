"""AdaMerging learns its coefficients without labels: it makes the merged model sure of its answers."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import logits, loss, mlp, moons, trained
from reference_impls.task_vectors.adamerging import adamerging
from reference_impls.task_vectors.task_arithmetic import task_arithmetic

CONTROLS = [Control("num_steps", 0, 60, 20, 10), Control("lr", 0.0, 0.05, 0.01, 0.01), Control("initial", 0.1, 0.5, 0.3, 0.1)]


def demo(num_steps, lr, initial):
    network, tasks = mlp(2, 12, 2), [moons(task, turn=25.0 * task) for task in range(3)]
    base = trained(network, tasks, steps=20)
    finetuned = [trained(network, task, start=base, steps=40, lr=0.03) for task in tasks]
    learned = adamerging(base, finetuned, network, tasks, initial=initial, num_steps=num_steps, lr=lr)
    fixed = task_arithmetic(base, finetuned, scaling_coef=initial)
    return Picture(
        title="Entropy and loss on three tasks, before and after the coefficients were learned",
        reading="With no steps both are task arithmetic. Entropy needs no labels and falls on every task; the loss does not "
        "have to follow: in this small network being sure is not being right on all tasks.",
        x="",
        y="nats",
        kind="bar",
        at=[f"entropy {t}" for t in (1, 2, 3)] + [f"loss {t}" for t in (1, 2, 3)],
        series={
            name: [entropy(network, theta, task) for task in tasks] + [loss(network, theta, task) for task in tasks]
            for name, theta in (("task arithmetic", fixed), ("AdaMerging", learned))
        },
    )


def entropy(network, theta, task):
    with torch.no_grad():
        p = logits(network, theta, task[0]).softmax(dim=1)
    return -(p * p.clamp(min=1e-12).log()).sum(dim=1).mean()
