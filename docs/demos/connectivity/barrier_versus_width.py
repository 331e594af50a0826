"""Pairs of networks of growing width: the hill between them as they are and with their units matched."""

from docs.demos.picture import Control, Picture
from docs.demos.toys import loss, mlp, moons, trained
from reference_impls.connectivity.barrier_versus_width import barrier_versus_width

CONTROLS = [Control("seed", 1, 5, 1, 1), Control("steps", 20, 80, 60, 20)]


def demo(seed, steps):
    task, widths = moons(), [4, 8, 16, 32, 64]
    pairs = [[trained(mlp(2, width, 2), task, seed + i, steps=steps) for i in (0, 10)] for width in widths]
    any_width = mlp(2, 4, 2)
    found = barrier_versus_width(pairs, lambda theta: loss(any_width, theta, task), layers=("0", "2"))
    return Picture(
        title="Loss barrier between two networks that were trained apart, by their width",
        reading="The wider the networks, the closer lies a partner for each unit: with partners matched the hill between wide "
        "networks all but vanishes; without, it stays.",
        x="units",
        y="barrier",
        at=[str(width) for width in widths],
        series={"as they are": found.plain, "matched": found.matched},
    )
