"""From the initial weights to the trained ones: the whole network, and one layer at a time."""

from docs.demos.picture import Control, Picture
from docs.demos.toys import drawn, loss, mlp, moons, trained
from reference_impls.connectivity.layerwise_interpolation import layerwise_interpolation

CONTROLS = [Control("width", 4, 24, 12, 4), Control("steps", 20, 100, 60, 20)]


def demo(width, steps):
    network, task = mlp(2, width, width, 2), moons()
    initial = drawn(network, 1)
    final = trained(network, task, start=initial, steps=steps)
    found = layerwise_interpolation(initial, final, lambda theta: loss(network, theta, task), num_points=21)
    names = {"0": "first layer alone", "2": "second layer alone", "4": "last layer alone"}
    return Picture(
        title="Loss from the initial weights to the trained ones",
        reading="Put back to where it started, the first layer alone costs nearly as much as all layers, the others little: "
        "the line of the whole network says nothing about that.",
        x="position on the way",
        y="loss",
        at=found.whole.ts,
        series={"all layers": found.whole.losses} | {names[name]: curve.losses for name, curve in found.layers.items()},
    )
