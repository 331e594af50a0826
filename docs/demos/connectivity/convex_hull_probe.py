"""Random mixtures of four networks: those that share the start of their training, and those that do not."""

from docs.demos.picture import Control, Picture
from docs.demos.toys import generator, loss, mlp, moons, trained
from reference_impls.connectivity.convex_hull_probe import convex_hull_probe

CONTROLS = [Control("shared", 0, 40, 20, 5), Control("num_points", 10, 60, 40, 10)]


def demo(shared, num_points):
    network, tasks, test = mlp(2, 12, 2), [moons(seed) for seed in range(1, 5)], moons(9)
    start = trained(network, moons(), steps=shared)
    together = [trained(network, task, start=start, steps=40) for task in tasks]
    apart = [trained(network, task, seed, steps=shared + 40) for seed, task in enumerate(tasks, 1)]
    points = {}
    for name, models in (("trained apart", apart), ("shared start", together)):
        hull = convex_hull_probe(
            models, lambda theta: loss(network, theta, test), num_points=num_points, generator=generator(0)
        )
        points[name] = (hull.weights.max(dim=1).values, hull.losses)
    return Picture(
        title="Loss at random points of the hull of four networks",
        reading="Between networks that share the start of their training the loss is low everywhere; between those that "
        "were trained apart it rises towards the middle.",
        x="largest share of one network (1: at a corner)",
        y="loss",
        kind="scatter",
        series=points,
    )
