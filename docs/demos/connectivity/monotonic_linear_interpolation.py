"""From the start of training straight to its end: does the loss fall all the way?"""

from docs.demos.picture import Control, Picture
from docs.demos.toys import drawn, logits, loss, mlp, moons, trained
from reference_impls.connectivity.monotonic_linear_interpolation import monotonic_linear_interpolation

CONTROLS = [Control("steps", 10, 100, 60, 10), Control("lr", 0.01, 0.15, 0.05, 0.01)]


def demo(steps, lr):
    network, task = mlp(2, 12, 2), moons()
    start = drawn(network, 1)
    end = trained(network, task, start=start, steps=steps, lr=lr)
    at = lambda theta: loss(network, theta, task)  # noqa: E731
    said = lambda theta: logits(network, theta, task[0])  # noqa: E731
    found = monotonic_linear_interpolation(start, end, at, said, num_points=21)
    ts = [i / 20 for i in range(21)]
    path = [trained(network, task, start=start, steps=round(t * steps), lr=lr) for t in ts]
    return Picture(
        title="Loss on the straight line from the first weights to the trained ones, and along the training itself",
        reading="Training does not go straight, but the straight line would have gone down all the way too.",
        x="share of the way, and of the steps",
        y="loss",
        at=ts,
        series={"training": [at(theta).item() for theta in path], "straight line": found.curve.losses},
    )
