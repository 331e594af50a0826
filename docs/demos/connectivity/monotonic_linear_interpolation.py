"""From the initial weights to trained ones that lie near and far: does the loss fall all the way?"""

from docs.demos.picture import Control, Picture
from docs.demos.toys import drawn, logits, loss, mlp, moons, trained
from reference_impls.connectivity.monotonic_linear_interpolation import monotonic_linear_interpolation

CONTROLS = [Control("lr", 0.2, 1.0, 0.8, 0.2), Control("steps", 20, 60, 20, 20)]


def demo(lr, steps):
    network, task = mlp(2, 12, 12, 2), moons()
    initial = drawn(network, 1)
    tests = [
        monotonic_linear_interpolation(
            initial,
            trained(network, task, start=initial, steps=steps, lr=rate),
            lambda theta: loss(network, theta, task),
            lambda theta: logits(network, theta, task[0]),
            num_points=21,
        )
        for rate in (0.02, lr)
    ]
    near, far = (test.distance.item() for test in tests)
    return Picture(
        title="Loss on the line from the initial weights to the trained ones",
        reading=f"With small steps the loss falls all the way; with larger ones, which end {far:.0f} from the start instead of "
        f"{near:.0f}, {'it still does' if tests[1].monotonic else 'it climbs on the way'}.",
        x="position on the line",
        y="loss",
        at=tests[0].curve.ts,
        series={"small steps": tests[0].curve.losses, "larger steps": tests[1].curve.losses},
    )
