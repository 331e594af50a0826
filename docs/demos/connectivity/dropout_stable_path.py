"""A path written down without training, through versions of both networks that use half of their units."""

from docs.demos.picture import Control, Picture
from docs.demos.toys import loss, mlp, moons, trained
from reference_impls.connectivity.dropout_stable_path import dropout_stable_path
from reference_impls.core.paths import interpolate

CONTROLS = [Control("width", 8, 64, 32, 8), Control("rescale", 1.0, 3.0, 2.0, 0.5)]


def demo(width, rescale):
    network, task = mlp(2, width, 2), moons()
    a, b = (trained(network, task, seed) for seed in (1, 2))
    at = lambda theta: loss(network, theta, task)  # noqa: E731
    path = dropout_stable_path(a, b, at, layers=("0", "2"), rescale=rescale)
    ts = path.losses.ts.tolist()
    return Picture(
        title="Loss on the way from one network to another that was trained apart",
        reading="The highest loss on the path is that of a network with half of its units removed, far below the hill on the "
        "straight line, and nothing was trained.",
        x="position on the way",
        y="loss",
        at=ts,
        series={"straight line": [at(interpolate(a, b, t)).item() for t in ts], "through halved networks": path.losses.losses},
    )
