"""Two networks asked along a line of inputs, and the ways to put their answers together."""

import torch
from torch import nn

from docs.demos.picture import Control, Picture
from reference_impls.ensembles.logit_ensemble import logit_ensemble

CONTROLS = [Control("sharpness", 1.0, 8.0, 4.0, 1.0), Control("weight", 0.0, 1.0, 0.5, 0.1)]


class Threshold(nn.Module):
    """The second class from some place on, the surer the farther."""

    def __init__(self, place, slope):
        super().__init__()
        self.place, self.slope = place, slope

    def forward(self, x):
        return torch.cat([torch.zeros_like(x), self.slope * (x - self.place)], dim=1)


def demo(sharpness, weight):
    networks = [Threshold(-1.0, 1.0), Threshold(1.0, sharpness)]
    x = torch.linspace(-3, 3, 31)[:, None]
    second = lambda network: network(x).softmax(dim=1)[:, 1]
    both = {rule: logit_ensemble(networks, combine=rule, weights=[1 - weight, weight]) for rule in ("probabilities", "logits")}
    return Picture(
        title="Probability of the second class, by input",
        reading="The mean of probabilities has both networks' steps; the mean of logits is one step, nearer to the "
        "network that is surer.",
        x="input",
        y="probability",
        at=x[:, 0],
        series={"network 1": second(networks[0]), "network 2": second(networks[1])}
        | {f"mean of {rule}": both[rule](x)[:, 1] for rule in both},
    )
