"""Weight matching layer by layer in random order, and Frank-Wolfe on all layers at once: how close the networks come."""

from docs.demos.picture import Control, Picture
from docs.demos.toys import entries, generator, mlp, moons, trained, units
from reference_impls.alignment.frank_wolfe_matching import frank_wolfe_matching
from reference_impls.alignment.weight_matching import weight_matching
from reference_impls.core.permutation import apply_permutation

CONTROLS = [Control("width", 4, 16, 12, 4), Control("max_iter", 0, 12, 8, 2)]


def demo(width, max_iter):
    network, task = mlp(2, width, width, width, 2), moons()
    a, b = (trained(network, task, seed, steps=30) for seed in (1, 2))
    spec = units(network)

    def far(permutations):
        moved = apply_permutation(spec, permutations, b)
        return sum((a[key] - moved[key]).square().sum() for key in a).sqrt().item()

    seeds = range(1, 9)
    in_turn = [far(weight_matching(a, b, spec, generator=generator(seed))) for seed in seeds]
    at_once = far(frank_wolfe_matching(a, b, spec, max_iter=max_iter))
    return Picture(
        title="Distance between two networks after matching",
        reading="Where weight matching ends depends on the order in which it visits the layers; Frank-Wolfe moves all at "
        "once, and after some steps comes closer here.",
        x="order of the layers, drawn anew",
        y="distance of the weights",
        kind="dot",
        at=entries(len(seeds)),
        series={"weight matching": in_turn, "Frank-Wolfe": [at_once] * len(seeds)},
    )
