"""Branch-Train-MiX: layers of models trained apart become experts, and a router is trained to send inputs to them."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import clusters, loss, mlp, trained
from reference_impls.averaging.uniform_soup import uniform_soup
from reference_impls.mixing.branch_train_mix import branch_train_mix

CONTROLS = [Control("num_steps", 0, 60, 40, 10), Control("top_k", 1, 3, 2, 1), Control("lr", 0.005, 0.03, 0.02, 0.005)]


def demo(num_steps, top_k, lr):
    network, tasks = mlp(2, 8, 8, 2), [clusters(task) for task in range(3)]
    base = trained(network, tasks, steps=10)
    branches = [trained(network, task, start=base, steps=40, lr=0.03) for task in tasks]
    mixed = branch_train_mix(network, base, branches, tasks, ["2"], top_k=top_k, include_base=False, num_steps=num_steps, lr=lr)
    error = lambda outputs, targets: torch.nn.functional.cross_entropy(outputs, targets)
    with torch.no_grad():
        after = [error(mixed(inputs), targets) for inputs, targets in tasks]
    return Picture(
        title="Loss on three tasks: branches averaged, and mixed with a trained router",
        reading="All other layers are averaged in both. The experts of the middle layer stay apart, and the whole is "
        "trained on a little data of every task; with no steps the router still sends inputs anywhere.",
        x="task",
        y="loss",
        kind="bar",
        at=["task 1", "task 2", "task 3"],
        series={"averaged": [loss(network, uniform_soup(branches), task) for task in tasks], "mixed": after},
    )
