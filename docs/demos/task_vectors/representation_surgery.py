"""Representation surgery: a small module per task takes the bias out of the merged model's features."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import clusters, hidden, mlp, trained
from reference_impls.averaging.uniform_soup import uniform_soup
from reference_impls.task_vectors.representation_surgery import representation_surgery

CONTROLS = [Control("rank", 1, 8, 4, 1), Control("num_steps", 0, 120, 80, 20), Control("lr", 0.005, 0.03, 0.01, 0.005)]


def demo(rank, num_steps, lr):
    network, tasks = mlp(2, 12, 2), [clusters(task) for task in range(3)]
    base = trained(network, tasks, steps=10)
    finetuned = [trained(network, task, start=base, steps=40) for task in tasks]
    merged = uniform_soup(finetuned)
    features = lambda theta, task: hidden(network, theta, task[0])["0"]
    names = [f"task {t}" for t in range(1, 4)]
    ours = dict(zip(names, (features(merged, task) for task in tasks)))
    own = dict(zip(names, (features(theta, task) for theta, task in zip(finetuned, tasks))))
    modules = representation_surgery(ours, own, rank=rank, num_steps=num_steps, lr=lr)
    with torch.no_grad():
        after = {name: modules[name](ours[name]) for name in names}
    gap = lambda made: [(made[name] - own[name]).abs().mean() for name in names]
    return Picture(
        title="Mean distance of the merged model's features from those of the task's own model",
        reading="Averaging moves the features of every task; a module of low rank, trained on unlabeled inputs, takes most of "
        "the distance back.",
        x="task",
        y="L1 distance",
        kind="bar",
        at=names,
        series={"averaged": gap(ours), "after surgery": gap(after)},
    )
