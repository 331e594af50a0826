"""Piggyback learns which weights of a fixed network to switch off for a new task."""

from docs.demos.picture import Control, Picture
from docs.demos.toys import clusters, loss, mlp, moons, trained
from reference_impls.task_vectors.piggyback import piggyback

CONTROLS = [Control("num_steps", 0, 100, 60, 20), Control("lr", 0.0, 0.002, 0.0005, 0.0001)]


def demo(num_steps, lr):
    network, old, new = mlp(2, 24, 2), clusters(0), moons()
    base = trained(network, old, steps=40)
    masked = piggyback(network, base, [new], num_steps=num_steps, lr=lr).model()
    return Picture(
        title="Loss of a fixed network under its masks, on the task that it was trained for and on a new one",
        reading="None of the weights changes; one bit a weight makes the network good at a task that it has never seen, "
        "and without the bits it still has the old one.",
        x="",
        y="loss",
        kind="bar",
        at=["old task", "new task"],
        series={
            name: [loss(network, theta, task) for task in (old, new)] for name, theta in (("base", base), ("masked", masked))
        },
    )
