"""A permutation that looks at the loss: the line between two networks after weight matching and after the estimator."""

from docs.demos.picture import Control, Picture
from docs.demos.toys import generator, loss, mlp, moons, trained, units
from reference_impls.alignment.ste_matching import ste_matching
from reference_impls.alignment.weight_matching import weight_matching
from reference_impls.core.paths import interpolate
from reference_impls.core.permutation import apply_permutation

CONTROLS = [Control("width", 4, 12, 8, 2), Control("num_steps", 0, 20, 10, 5), Control("lr", 0.02, 0.2, 0.1, 0.02)]


def demo(width, num_steps, lr):
    network, task = mlp(2, width, width, 2), moons()
    a, b = (trained(network, task, seed) for seed in (3, 4))
    spec, at = units(network), lambda theta: loss(network, theta, task)
    matched = weight_matching(a, b, spec, generator=generator(0))
    learned = ste_matching(a, b, spec, at, num_steps=num_steps, lr=lr, generator=generator(0))
    ts = [i / 10 for i in range(11)]
    along = lambda order: [at(interpolate(a, apply_permutation(spec, order, b), t)).item() for t in ts]  # noqa: E731
    return Picture(
        title="Loss on the line between two networks that were trained apart",
        reading="Weight matching, blind to the loss, makes the hill higher here; a few steps that look at the loss half way "
        "find an order that lowers it.",
        x="position on the line",
        y="loss",
        at=ts,
        series={"as they are": along({}), "after weight matching": along(matched), "after the estimator": along(learned)},
    )
