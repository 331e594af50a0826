"""PHATGOOSE: every adapter's owner trains a gate for it, alone; together the gates route inputs."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import clusters, drawn, generator, mlp
from reference_impls.mixing.phatgoose import phatgoose

CONTROLS = [Control("num_steps", 5, 60, 30, 5), Control("lr", 0.005, 0.05, 0.03, 0.005), Control("top_k", 1, 3, 2, 1)]


def demo(num_steps, lr, top_k):
    network, tasks = mlp(2, 8, 2), [clusters(task) for task in range(3)]
    base, g, adapters = drawn(network), generator(1), []
    for inputs, targets in tasks:  # rank one, trained with the base frozen
        A, B = torch.randn(1, 2, generator=g).requires_grad_(), torch.zeros(8, 1).requires_grad_()
        optimizer = torch.optim.Adam([A, B], lr=0.05)
        for _ in range(40):
            optimizer.zero_grad()
            theta = base | {"0.weight": base["0.weight"] + B @ A}
            outputs = torch.func.functional_call(network, theta, (inputs,))
            torch.nn.functional.cross_entropy(outputs, targets).backward()
            optimizer.step()
        adapters.append({"0.weight": (A.detach(), B.detach())})
    routed = phatgoose(network, base, adapters, [[task] for task in tasks], top_k=top_k, num_steps=num_steps, lr=lr)
    with torch.no_grad():
        weights = [routed[0].routing(inputs).mean(dim=0) for inputs, _ in tasks]
    return Picture(
        title="Mean routing weight of every adapter, by the task that the inputs come from",
        reading="No gate has seen another task's data. Inputs are two numbers here, so that gates tell tasks apart only in part.",
        x="adapter",
        y="weight",
        kind="bar",
        at=["adapter 1", "adapter 2", "adapter 3"],
        series={f"inputs of task {t}": weight for t, weight in enumerate(weights, 1)},
    )
