"""Two networks trained apart: the loss on the straight line between them, and on a curve that was trained to be low."""

from docs.demos.picture import Control, Picture
from docs.demos.toys import generator, loss, mlp, moons, trained
from reference_impls.connectivity.curve_finding import curve_finding
from reference_impls.core.paths import interpolate

CONTROLS = [Control("steps", 0, 150, 60, 15), Control("bends", 1, 3, 1, 1)]


def demo(steps, bends):
    network, task = mlp(2, 12, 2), moons()
    a, b = (trained(network, task, seed) for seed in (1, 2))
    at = lambda theta: loss(network, theta, task)
    curve = curve_finding(a, b, at, num_bends=bends, num_steps=steps, lr=0.3, num_points=21, generator=generator(0))
    ts = curve.losses.ts.tolist()
    return Picture(
        title="Loss on the way from one network to another that was trained apart",
        reading="The straight line climbs a hill; the curve, whose bend was trained for low loss along the way, goes around it.",
        x="position on the way",
        y="loss",
        at=ts,
        series={"straight line": [at(interpolate(a, b, t)).item() for t in ts], "curve": curve.losses.losses},
    )
