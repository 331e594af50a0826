"""A permutation trained by gradient descent for a low loss half way: the loss on the line before and after."""

from docs.demos.picture import Control, Picture
from docs.demos.toys import generator, loss, mlp, moons, trained, units
from reference_impls.alignment.sinkhorn_rebasin import sinkhorn_rebasin
from reference_impls.alignment.weight_matching import weight_matching
from reference_impls.core.paths import interpolate
from reference_impls.core.permutation import apply_permutation

CONTROLS = [Control("num_steps", 0, 40, 30, 10), Control("temperature", 0.1, 0.5, 0.1, 0.1)]


def demo(num_steps, temperature):
    network, task = mlp(2, 8, 8, 2), moons()
    a, b = (trained(network, task, seed) for seed in (1, 2))
    spec, at = units(network), lambda theta: loss(network, theta, task)
    learned = sinkhorn_rebasin(
        a, b, spec, objective="midpoint", loss_fn=at, num_steps=num_steps, temperature=temperature, generator=generator(0)
    )
    matched = weight_matching(a, b, spec, generator=generator(0))
    ts = [i / 10 for i in range(11)]
    along = lambda order: [at(interpolate(a, apply_permutation(spec, order, b), t)).item() for t in ts]  # noqa: E731
    return Picture(
        title="Loss on the line between two networks that were trained apart",
        reading="Trained on the loss half way, the permutation is at least as good there as weight matching, which never sees "
        "the loss; elsewhere on the line it need not be.",
        x="position on the line",
        y="loss",
        at=ts,
        series={"as they are": along({}), "after weight matching": along(matched), "after Sinkhorn re-basin": along(learned)},
    )
