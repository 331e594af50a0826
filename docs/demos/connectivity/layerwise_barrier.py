"""Two networks averaged in one layer only, and in more and more layers: where the harm comes from."""

from docs.demos.picture import Control, Picture
from docs.demos.toys import loss, mlp, moons, trained
from reference_impls.connectivity.layerwise_barrier import layerwise_barrier

CONTROLS = [Control("width", 4, 24, 12, 4), Control("t", 0.0, 1.0, 0.5, 0.1)]


def demo(width, t):
    network, task = mlp(2, width, width, width, 2), moons()
    a, b = (trained(network, task, seed, steps=40) for seed in (1, 2))
    found = layerwise_barrier(a, b, lambda theta: loss(network, theta, task), t=t)
    return Picture(
        title="Excess loss of a network after averaging some of its layers with another's",
        reading="Most single layers can be averaged at little cost; here one in the middle can't, and alone does as much harm as "
        "all layers together.",
        x="layer",
        y="loss above the mean of the two",
        kind="bar",
        at=["first", "second", "third", "last"],
        series={
            "this layer": found.single.mean(dim=1),
            "this and all before": found.from_input.mean(dim=1),
            "this and all after": found.from_output.mean(dim=1),
        },
    )
