"""Features half way between two networks, against half of each network's features, layer by layer."""

from docs.demos.picture import Control, Picture
from docs.demos.toys import hidden, mlp, moons, trained
from reference_impls.connectivity.llfc import llfc

CONTROLS = [Control("shared", 0, 40, 20, 10), Control("t", 0.0, 1.0, 0.5, 0.1)]


def demo(shared, t):
    network, first, second = mlp(2, 12, 12, 12, 2), moons(1), moons(2, turn=20)
    start = trained(network, moons(), 3, steps=shared)
    together = [trained(network, task, start=start, steps=20) for task in (first, second)]
    apart = [trained(network, task, seed, steps=shared + 20) for seed, task in enumerate((first, second), 1)]
    features = lambda theta: hidden(network, theta, first[0])  # noqa: E731
    found, other = llfc(*together, features, t=t), llfc(*apart, features, t=t)
    return Picture(
        title="How far features of the network half way are from the mean of both networks' features",
        reading="After a shared start, features half way are almost the mean of the two networks' features, although these "
        "differ; between networks trained apart they are not.",
        x="layer",
        y="one minus cosine",
        kind="bar",
        at=["first", "second", "third"],
        series={
            "trained apart": other.interpolated,
            "shared start, the two networks": found.baseline,
            "shared start": found.interpolated,
        },
    )
