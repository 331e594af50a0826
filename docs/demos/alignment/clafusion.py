"""Networks of different depth fused: the loss from all of the deep one to all of the shallow one."""

import torch
from torch import nn

from docs.demos.picture import Control, Picture
from docs.demos.toys import loss, moons, trained
from reference_impls.alignment.clafusion import clafusion

CONTROLS = [Control("width", 4, 16, 8, 2), Control("steps", 10, 60, 40, 10)]


def demo(width, steps):
    task = moons()
    deep = nn.Sequential(
        nn.Linear(2, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
        nn.Linear(width, 2),
    )
    shallow = nn.Sequential(nn.Linear(2, width), nn.ReLU(), nn.Linear(width, 2))
    a, b = trained(deep, task, 1, steps=steps), trained(shallow, task, 2, steps=steps)

    def says(theta):  # the hidden layers, from the input to the output
        x, out = task[0], {}
        for name in [key.partition(".")[0] for key in theta if key.endswith("weight")][:-1]:
            x = out[name] = torch.relu(x @ theta[f"{name}.weight"].T + theta[f"{name}.bias"])
        return out

    ts = [i / 10 for i in range(11)]
    fused = [loss(deep, clafusion(a, b, says(a), says(b), t=t), task).item() for t in ts]
    ends = [loss(deep, a, task).item(), loss(shallow, b, task).item()]
    return Picture(
        title="Loss on the way from a network with three hidden layers to one with a single one",
        reading="With identity layers where it lacks some, the shallow network keeps its loss at the depth of the other (share "
        "1); a fair share of it can be mixed in before the loss climbs.",
        x="share of the shallow network",
        y="loss",
        at=ts,
        series={"mean of the two losses": [(1 - t) * ends[0] + t * ends[1] for t in ts], "CLAFusion": fused},
    )
