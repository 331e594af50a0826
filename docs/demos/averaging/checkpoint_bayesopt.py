"""The best mixture of two checkpoints, found with a few evaluations of a score."""

import math

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import generator
from reference_impls.averaging.checkpoint_bayesopt import checkpoint_bayesopt

CONTROLS = [Control("num_trials", 2, 12, 5, 1), Control("lower", 0.0, 0.8, 0.0, 0.1), Control("peak", 0.1, 0.9, 0.6, 0.1)]


def demo(num_trials, lower, peak):
    tried = []
    height = lambda share: math.exp(-8 * (share - peak) ** 2)

    def score(model):
        tried.append(model["w"].item())
        return height(tried[-1])

    earlier, later = {"w": torch.zeros(1)}, {"w": torch.ones(1)}  # so a mixture's weight is the later one's share
    best = checkpoint_bayesopt(earlier, later, score, lower=lower, num_trials=num_trials, generator=generator(0))["w"].item()
    shares = [i / 20 for i in range(21)]
    return Picture(
        title="Score of the mixtures of two checkpoints, and the few that were tried",
        reading="The search never sees the grey points; a Gaussian process over its own trials leads it to the top.",
        x="share of the later checkpoint",
        y="score",
        kind="scatter",
        series={
            "all mixtures": (shares, [height(share) for share in shares]),
            "tried": (tried, [height(share) for share in tried]),
            "chosen": ([best], [height(best)]),
        },
    )
