"""Models fine-tuned on three tasks are averaged into a new base: where a fourth task starts from."""

from docs.demos.picture import Control, Picture
from docs.demos.toys import drawn, loss, mlp, moons, trained
from reference_impls.averaging.fused_base import fused_base

CONTROLS = [Control("steps", 5, 60, 30, 5), Control("turn", 0, 90, 30, 10)]


def demo(steps, turn):
    network = mlp(2, 12, 2)
    base = drawn(network, 0)
    finetuned = [trained(network, moons(seed, turn=turn * seed), start=base, steps=steps) for seed in (-1, 0, 1)]
    fused = fused_base(finetuned)
    new = moons(7, turn=turn / 2)
    after = [0, 1, 2, 4, 8, 12, 16, 20]
    tuned = lambda start: [loss(network, trained(network, new, start=start, steps=n, lr=0.02), new).item() for n in after]
    return Picture(
        title="Loss at a new task while it is learned, from the old base and from the fused one",
        reading="The fused model has learned what the three earlier tasks share, so that the new one starts lower; "
        "turn them apart and less is shared.",
        x="steps of fine-tuning",
        y="loss",
        at=after,
        series={"from the base": tuned(base), "from the fused base": tuned(fused)},
    )
