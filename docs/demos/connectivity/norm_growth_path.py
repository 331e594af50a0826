"""Networks trained from one start on more and more examples: distance from the start, a norm bound, and the loss."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import drawn, loss, mlp, moons, trained
from reference_impls.connectivity.norm_growth_path import norm_growth_path

CONTROLS = [Control("steps", 40, 100, 80, 20), Control("noise", 0.1, 0.4, 0.1, 0.1)]


def demo(steps, noise):
    network, test, sizes = mlp(2, 24, 2), moons(99, count=100, noise=noise), (10, 30, 90)

    def fit(theta, size, generator):
        seed = int(torch.randint(1000, (), generator=generator))
        return trained(network, moons(seed, count=size, noise=noise), start=theta, steps=steps)

    start, at = drawn(network, 1), lambda theta: loss(network, theta, test)
    seeds = [torch.Generator().manual_seed(seed) for seed in (0, 1, 2)]
    runs = [norm_growth_path(start, fit, at, sizes=sizes, num_points=2, generator=seed) for seed in seeds]

    def share(values):  # mean of the runs, as a multiple of the first
        mean = torch.stack(values).mean(dim=0)
        return mean / mean[0]

    return Picture(
        title="What grows and what falls with the number of training examples, as a multiple of the first",
        reading="With more examples the loss falls to almost nothing; the distance from the start grows, and a bound made of "
        "norms does not follow the loss down.",
        x="training examples",
        y="times the value at 10",
        at=[str(size) for size in sizes],
        series={
            "distance from the start": share([run.distances for run in runs]),
            "norm bound": share([run.bounds for run in runs]),
            "test loss": share([run.test_losses for run in runs]),
        },
    )
