"""Two matched networks on the way from one to the other: how much their units still vary, before and after REPAIR."""

from docs.demos.picture import Control, Picture
from docs.demos.toys import generator, hidden, mlp, moons, trained, units
from reference_impls.alignment.repair import repair
from reference_impls.alignment.weight_matching import weight_matching
from reference_impls.core.paths import interpolate
from reference_impls.core.permutation import apply_permutation

CONTROLS = [Control("width", 4, 24, 12, 4), Control("t", 0.0, 1.0, 0.5, 0.1)]


def demo(width, t):
    network, task = mlp(2, width, width, width, 2), moons()
    a, b = (trained(network, task, seed, steps=20) for seed in (1, 2))
    spec = units(network)
    b = apply_permutation(spec, weight_matching(a, b, spec, generator=generator(0)), b)
    spread = lambda theta: [z.std(dim=0).mean().item() for z in hidden(network, theta, task[0]).values()]  # noqa: E731
    ends = [(1 - t) * x + t * y for x, y in zip(spread(a), spread(b))]
    return Picture(
        title="How much hidden units vary over the inputs, layer by layer",
        reading="Where units agree only in part, their average varies less than either; REPAIR gives every unit its spread back.",
        x="layer",
        y="mean standard deviation",
        kind="bar",
        at=["first", "second", "third"],
        series={
            "mean of the two networks'": ends,
            "between them": spread(interpolate(a, b, t)),
            "after REPAIR": spread(repair(network, a, b, spec, [task], t=t)),
        },
    )
