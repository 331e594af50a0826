"""Three networks matched in pairs, and all at once through a common order: how many units come home from a round trip."""

from docs.demos.picture import Control, Picture
from docs.demos.toys import generator, mlp, moons, trained, units
from reference_impls.alignment.c2m3 import universe_permutations
from reference_impls.alignment.weight_matching import weight_matching
from reference_impls.core.permutation import compose, invert

CONTROLS = [Control("width", 4, 12, 8, 2), Control("steps", 0, 60, 40, 10)]


def demo(width, steps):
    network, task = mlp(2, width, width, 2), moons()
    models = [trained(network, task, seed, steps=steps) for seed in (1, 2, 3)]
    spec, trip = units(network), [(0, 1), (1, 2), (2, 0)]
    pairs = [weight_matching(models[i], models[j], spec, generator=generator(0)) for i, j in trip]
    universe = universe_permutations(models, spec, max_iter=10)
    through = [compose(invert(universe[i]), universe[j]) for i, j in trip]

    def home(steps):  # percent of the units of each layer that are back where they started
        whole = compose(compose(steps[0], steps[1]), steps[2])
        return [100 * sum(int(p) == i for i, p in enumerate(order)) / width for order in whole.values()]

    return Picture(
        title="Units that are back in their place after going from A to B to C and back to A",
        reading="Matchings found pair by pair contradict each other; with one common order all units come home.",
        x="layer",
        y="percent of the units",
        kind="bar",
        at=["first", "second"],
        series={"matched in pairs": home(pairs), "C2M3": home(through)},
    )
