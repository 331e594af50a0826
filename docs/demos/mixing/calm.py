"""CALM: a frozen model attends to the hidden layers of another, and only the connections are trained."""

import torch
from torch import nn

from docs.demos.picture import Control, Picture
from docs.demos.toys import clusters, mlp, trained
from reference_impls.mixing.calm import calm

CONTROLS = [Control("num_steps", 0, 60, 40, 10), Control("num_heads", 1, 4, 2, 1)]


def demo(num_steps, num_heads):
    anchor, helper = mlp(2, 12, 2), mlp(2, 8, 2)
    own, new = clusters(0), clusters(1)
    anchor.load_state_dict(trained(anchor, own, steps=40))
    helper.load_state_dict(trained(helper, new, seed=1, steps=40))
    heads = 3 if num_heads == 3 else num_heads  # 12 units divide by 1, 2, 3 and 4
    both = calm(anchor, helper, [own, new], [("0", "0")], num_heads=heads, num_steps=num_steps, lr=0.02)
    error = lambda network, task: nn.functional.cross_entropy(network(task[0]), task[1])
    with torch.no_grad():
        series = {
            name: [error(net, task) for task in (own, new)]
            for name, net in (("anchor", anchor), ("helper", helper), ("CALM", both))
        }
    return Picture(
        title="Loss of two models on their tasks, and of the composition",
        reading="Neither model is changed. The composition starts as the anchor, and by attending to the helper it takes "
        "on the helper's task.",
        x="task",
        y="loss",
        kind="bar",
        at=["the anchor's task", "the helper's task"],
        series=series,
    )
