"""Models fine-tuned from one base with different data: the loss of each, and of the mean of the first so many."""

from docs.demos.picture import Control, Picture
from docs.demos.toys import loss, mlp, moons, trained
from reference_impls.averaging.uniform_soup import uniform_soup

CONTROLS = [Control("count", 12, 60, 20, 4), Control("steps", 10, 100, 60, 10)]


def demo(count, steps):
    network, held_out = mlp(2, 12, 2), moons(99, count=200, noise=0.3)
    base = trained(network, moons(0, noise=0.3), steps=20)
    models = [trained(network, moons(seed, count=count, noise=0.3), start=base, steps=steps) for seed in range(1, 7)]
    score = lambda theta: loss(network, theta, held_out).item()
    numbers = list(range(1, 7))
    return Picture(
        title="Held-out loss of models fine-tuned on little data each, and of their averages",
        reading="Each model learns the accidents of its own data; they differ from model to model and cancel in the average.",
        x="models",
        y="held-out loss",
        at=numbers,
        series={
            "this model alone": [score(model) for model in models],
            "soup up to this one": [score(uniform_soup(models[:n])) for n in numbers],
        },
    )
