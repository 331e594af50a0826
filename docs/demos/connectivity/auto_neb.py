"""A chain of pivots between two networks slides down across the path: the loss on the way before and after."""

from docs.demos.picture import Control, Picture
from docs.demos.toys import loss, mlp, moons, trained
from reference_impls.connectivity.auto_neb import auto_neb
from reference_impls.core.paths import interpolate

CONTROLS = [Control("num_pivots", 1, 5, 3, 1), Control("num_steps", 0, 20, 10, 5), Control("lr", 0.05, 0.5, 0.2, 0.05)]


def demo(num_pivots, num_steps, lr):
    network, task = mlp(2, 12, 2), moons()
    a, b = (trained(network, task, seed) for seed in (1, 2))
    at = lambda theta: loss(network, theta, task)  # noqa: E731
    band = auto_neb(a, b, at, num_pivots=num_pivots, num_steps=num_steps, lr=(lr, lr), num_inner=3)
    ts = band.losses.ts.tolist()
    return Picture(
        title="Loss on the way from one network to another that was trained apart",
        reading="The straight line climbs a hill; the band, pushed down everywhere across its own direction, goes around it.",
        x="position on the way",
        y="loss",
        at=ts,
        series={"straight line": [at(interpolate(a, b, t)).item() for t in ts], "band": band.losses.losses},
    )
