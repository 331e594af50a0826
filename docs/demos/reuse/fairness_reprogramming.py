"""Fairness reprogramming: a trigger in the input hides the group from a frozen classifier."""

import torch
from torch import nn

from docs.demos.picture import Control, Picture
from docs.demos.toys import generator
from reference_impls.reuse.fairness_reprogramming import fairness_reprogramming

CONTROLS = [Control("fairness_weight", 0.0, 40.0, 30.0, 10.0), Control("num_steps", 0, 120, 80, 20)]


class Largest(nn.Module):
    """Says yes where the largest entry is large, whichever it is: the group's cue too."""

    def forward(self, x):
        return torch.stack([torch.zeros(len(x)), 4 * x.amax(dim=1) - 2], 1)


def demo(fairness_weight, num_steps):
    g = generator(0)
    groups = torch.arange(40) % 2
    own = 2 * torch.rand(40, generator=g) - 1
    x = torch.stack([own, groups.float(), torch.zeros(40)], dim=1)  # the label's cue, the group's cue, room for a trigger
    y = (own > 0).long()
    fair = fairness_reprogramming(
        Largest(), [(x, y, groups)], mask=torch.tensor([0.0, 0.0, 1.0]), fairness_weight=fairness_weight,
        num_steps=num_steps, generator=generator(0),
    )  # fmt: skip
    with torch.no_grad():
        said = {name: net(x).softmax(dim=1)[:, 1] for name, net in (("frozen classifier", Largest()), ("with trigger", fair))}
    return Picture(
        title="Mean probability of yes for two groups that deserve the same",
        reading="A weight of 0 asks for right answers alone. With enough weight the trigger drowns what gives the group away, and "
        "here what the label rests on as well: both groups get the same answer, at a price.",
        x="group",
        y="probability",
        kind="bar",
        at=["group 1", "group 2"],
        series={name: [p[groups == i].mean() for i in (0, 1)] for name, p in said.items()},
    )
