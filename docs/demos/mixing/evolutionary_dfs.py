"""Evolution in data flow space: the weights stay, the path of the data through the layers is searched."""

import torch
from torch import nn

from docs.demos.picture import Control, Picture
from docs.demos.toys import generator
from reference_impls.mixing.evolutionary_dfs import evolutionary_dfs

CONTROLS = [Control("num_evaluations", 0, 120, 80, 20), Control("wanted", 2, 12, 7, 1), Control("num_repeats", 1, 3, 2, 1)]


class Add(nn.Module):
    def forward(self, h):
        return h + 1


class Double(nn.Module):
    def forward(self, h):
        return 2 * h


def demo(num_evaluations, wanted, num_repeats):
    start = torch.ones(1)
    score = lambda network: -abs(float(network(start)) - wanted)
    found = evolutionary_dfs(
        nn.Identity(),
        [Add(), Double()],
        nn.Identity(),
        score,
        num_repeats=num_repeats,
        num_evaluations=num_evaluations,
        population=10,
        sigma=1.0,
        generator=generator(0),
    )
    values = [1.0]
    for layer, scale in zip(found.path, found.scales):
        h = scale * values[-1]
        values.append(h + 1 if layer == 0 else 2 * h)
    places = ["start"] + [f"{i}. {('add 1', 'double')[layer]}" for i, layer in enumerate(found.path, 1)]
    return Picture(
        title="The data on their way through the layers that the search chose",
        reading="The layers add 1 and double; the path starts with 1 and should end at what is wanted. Between two layers"
        " the data are scaled by a factor that is searched too.",
        x="layer",
        y="value",
        kind="dot",
        at=places,
        series={"wanted": [float(wanted)] * len(values), "value": values},
    )
