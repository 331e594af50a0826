"""From a network to its own copy with the units reversed: the straight line, and the path that one more unit opens."""

from docs.demos.picture import Control, Picture
from docs.demos.toys import loss, mlp, moons, trained
from reference_impls.connectivity.neuron_replication_path import neuron_replication_path
from reference_impls.core.paths import interpolate

CONTROLS = [Control("width", 2, 12, 6, 1), Control("steps", 20, 100, 60, 20)]


def demo(width, steps):
    task, wider = moons(), mlp(2, width + 1, 2)
    theta = trained(mlp(2, width, 2), task, 1, steps=steps)
    at = lambda model: loss(wider, model, task)  # noqa: E731
    path = neuron_replication_path(theta, at, layers=("0", "2"), num_points=3)
    ts = path.losses.ts.tolist()
    first, last = path.points[0], path.points[-1]
    return Picture(
        title="Loss on the way from a network to its copy with the hidden units in reverse order",
        reading="On the straight line units turn into one another and the loss climbs; on the path, a free unit takes over "
        "one place after the other and nothing changes.",
        x="position on the way",
        y="loss",
        at=ts,
        series={"straight line": [at(interpolate(first, last, t)).item() for t in ts], "by replication": path.losses.losses},
    )
