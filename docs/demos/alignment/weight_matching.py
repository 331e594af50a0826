"""Two networks of one task, trained apart: the loss on the line between them before and after weight matching."""

from docs.demos.picture import Control, Picture
from docs.demos.toys import generator, loss, mlp, moons, trained, units
from reference_impls.alignment.weight_matching import weight_matching
from reference_impls.core.paths import interpolate
from reference_impls.core.permutation import apply_permutation

CONTROLS = [Control("width", 4, 32, 16, 4), Control("steps", 20, 100, 60, 20)]


def demo(width, steps):
    network, task = mlp(2, width, width, 2), moons()
    a, b = (trained(network, task, seed, steps=steps) for seed in (1, 2))
    spec = units(network)
    matched = apply_permutation(spec, weight_matching(a, b, spec, generator=generator(0)), b)
    ts = [i / 10 for i in range(11)]
    along = lambda end: [loss(network, interpolate(a, end, t), task).item() for t in ts]
    return Picture(
        title="Loss on the line between two networks that were trained apart",
        reading="With its hidden units put in the order of the first network's, the second is far closer, and the "
        "hill between them shrinks.",
        x="position on the line",
        y="loss",
        at=ts,
        series={"as they are": along(b), "after weight matching": along(matched)},
    )
