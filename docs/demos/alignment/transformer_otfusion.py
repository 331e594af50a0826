"""Two networks with a residual stream, averaged after soft transport of their units, with a little entropy or much."""

import torch
from torch import nn

from docs.demos.picture import Control, Picture
from docs.demos.toys import loss, moons, trained
from reference_impls.alignment.transformer_otfusion import transformer_otfusion
from reference_impls.core.paths import interpolate
from reference_impls.core.permutation import PermutationSpec

CONTROLS = [Control("width", 4, 16, 8, 2), Control("reg", 0.0, 0.4, 0.1, 0.1), Control("skip", 0.0, 1.0, 0.5, 0.1)]


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.embed, self.up = nn.Linear(2, width), nn.Linear(width, width)
        self.down, self.head = nn.Linear(width, width), nn.Linear(width, 2)

    def forward(self, x):
        stream = self.embed(x)
        return self.head(stream + self.down(torch.tanh(self.up(stream))))


def says(theta, x):  # what every layer writes
    layer = lambda name, x: x @ theta[f"{name}.weight"].T + theta[f"{name}.bias"]  # noqa: E731
    stream = layer("embed", x)
    up = layer("up", stream)
    down = layer("down", torch.tanh(up))
    return {"embed": stream, "up": up, "down": down, "head": layer("head", stream + down)}


def demo(width, reg, skip):
    network, task = Residual(width), moons()
    a, b = (trained(network, task, seed) for seed in (1, 2))
    ends = {"embed": ("s", None), "up": ("h", "s"), "down": ("s", "h"), "head": (None, "s")}
    axes = {f"{name}.{part}": pair[: 2 - (part == "bias")] for name, pair in ends.items() for part in ("weight", "bias")}
    spec, given = PermutationSpec(axes, {"s": width, "h": width}), [says(theta, task[0]) for theta in (a, b)]
    ts = [i / 10 for i in range(11)]
    at = lambda theta: loss(network, theta, task).item()  # noqa: E731
    fused = lambda reg: [at(transformer_otfusion(a, b, *given, spec, t=t, reg=reg, skip=skip)) for t in ts]  # noqa: E731
    return Picture(
        title="Loss on the way from one network with a residual stream to another",
        reading="Half way, soft plans do best here; but they blur the network that is carried over: all of it (share 1) is "
        "worse than with hard plans.",
        x="share of the second network",
        y="loss",
        at=ts,
        series={"as they are": [at(interpolate(a, b, t)) for t in ts], "hard plans": fused(0.0), "soft plans": fused(reg)},
    )
