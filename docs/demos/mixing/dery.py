"""DeRy: trained networks are cut into blocks of like representations, and blocks of several are put together."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import blobs, mlp, trained
from reference_impls.mixing.dery import dery

CONTROLS = [Control("num_stages", 1, 3, 2, 1), Control("budget", 150, 400, 200, 50)]


def demo(num_stages, budget):
    task = blobs(0, classes=3, spread=0.6)
    small, large = mlp(2, 6, 6, 3), mlp(2, 14, 14, 3)
    for seed, network in enumerate((small, large)):
        network.load_state_dict(trained(network, task, seed=seed, steps=40))
    joined = dery([list(small), list(large)], task[0], num_stages=num_stages, max_parameters=budget)
    with torch.no_grad():
        losses = [torch.nn.functional.cross_entropy(net(task[0]), task[1]) for net in (small, large, joined)]
    shares = [sum(stop - start for n, start, stop in joined.blocks if n == number) for number in (0, 1)]
    return Picture(
        title="Loss of two trained networks and of one put together from their blocks, without training",
        reading="The score that chooses blocks needs no labels; where the network changes, a linear layer fits what comes"
        f" to what the next block knew. Now {shares[0]} layers are of the small network and {shares[1]} of the "
        "large one.",
        x="",
        y="loss",
        kind="bar",
        at=["small", "large", "put together"],
        series={"loss": losses},
    )
