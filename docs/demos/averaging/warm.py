"""Reward models trained on preferences of which some are wrong: how surely each repeats the wrong ones, and their average."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import drawn, generator, logits, mlp
from reference_impls.averaging.warm import reward_models, warm

CONTROLS = [Control("num_steps", 40, 120, 80, 20), Control("wrong", 0.1, 0.4, 0.2, 0.05)]


def demo(num_steps, wrong):
    network, g = mlp(2, 24, 1), generator(0)
    first, second = torch.randn(2, 60, 2, generator=g)
    better = first.sum(dim=1) > second.sum(dim=1)  # the true reward is the sum
    flipped = torch.rand(60, generator=g) < wrong
    chosen = (better != flipped)[:, None]
    preferences = torch.where(chosen, first, second), torch.where(chosen, second, first)
    starts, options = [drawn(network, 0)] * 3, {"lrs": (0.03, 0.02, 0.01), "num_steps": num_steps}
    members = reward_models(starts, network, preferences, generator=generator(1), **options)
    averaged = warm(starts, network, preferences, generator=generator(1), **options)

    def repeated(theta):
        margin = (logits(network, theta, preferences[0]) - logits(network, theta, preferences[1]))[:, 0]
        return [margin.sigmoid()[pairs].mean().item() for pairs in (flipped, ~flipped)]

    said = [repeated(theta) for theta in [*members, averaged]]
    return Picture(
        title="Probability that a reward model gives to the preferences that it was trained on",
        reading="The average of the weights repeats the wrong preferences a little less surely than its members do on average, "
        "and the right ones no less; on so small a problem the difference is slight.",
        x="",
        y="probability",
        kind="bar",
        at=["model 1", "model 2", "model 3", "WARM"],
        series={"wrong preferences": [wrong for wrong, _ in said], "right preferences": [right for _, right in said]},
    )
