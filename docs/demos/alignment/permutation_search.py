"""Units of one network exchanged at random, keeping mostly what lowers the hill to another: the line before and after."""

from docs.demos.picture import Control, Picture
from docs.demos.toys import generator, loss, mlp, moons, trained, units
from reference_impls.alignment.permutation_search import permutation_search
from reference_impls.alignment.weight_matching import weight_matching
from reference_impls.core.paths import interpolate
from reference_impls.core.permutation import apply_permutation

CONTROLS = [Control("num_steps", 0, 400, 200, 50), Control("temperature", 0.02, 0.2, 0.1, 0.02)]


def demo(num_steps, temperature):
    network, task = mlp(2, 8, 2), moons()
    a, b = (trained(network, task, seed) for seed in (1, 2))
    spec, at = units(network), lambda theta: loss(network, theta, task)
    matched = weight_matching(a, b, spec, generator=generator(0))
    found = permutation_search(a, b, spec, at, num_steps=num_steps, temperature=temperature, generator=generator(0))
    ts = [i / 10 for i in range(11)]
    along = lambda order: [at(interpolate(a, apply_permutation(spec, order, b), t)).item() for t in ts]  # noqa: E731
    return Picture(
        title="Loss on the line between two networks while the order of one's units is searched for",
        reading="The search knows nothing but the loss half way, and with enough exchanges finds an order "
        "with almost no hill.",
        x="position on the line",
        y="loss",
        at=ts,
        series={
            "as they are": along({}),
            "after weight matching": along(matched),
            "after the search": along(found.permutations),
        },
    )
