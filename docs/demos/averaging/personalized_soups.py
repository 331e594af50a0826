"""Two policies, one a preference: a user's wish between them is met by mixing their weights."""

import torch
from torch import nn

from docs.demos.picture import Control, Picture
from docs.demos.toys import drawn, generator, logits, mlp
from reference_impls.averaging.personalized_soups import personalized_soups

CONTROLS = [Control("num_steps", 0, 60, 30, 10), Control("kl_coef", 0.0, 1.0, 0.1, 0.1)]


def demo(num_steps, kl_coef):
    network = mlp(2, 12, 4)
    base, states = drawn(network, 0), torch.randn(30, 2, generator=generator(1))
    rewards = [nn.functional.one_hot(torch.full((30,), action), 4).float() for action in (0, 1)]  # each wants another action
    wishes = [i / 10 for i in range(11)]

    def reward(theta, k):
        return (logits(network, theta, states).softmax(dim=1) * rewards[k]).sum(dim=1).mean().item()

    options = {"kl_coef": kl_coef, "num_steps": num_steps, "lr": 0.02}
    wish = lambda w: personalized_soups(base, network, [(states, None)], rewards, weights=[1 - w, w], **options)
    policies = wish(0.0), wish(1.0)
    soups = [{key: (1 - w) * policies[0][key] + w * policies[1][key] for key in base} for w in wishes]
    return Picture(
        title="What a policy earns by each of two preferences, by the weight that the user gives to the second",
        reading="The mixture passes from one policy to the other without further training; halfway it earns something of both.",
        x="weight of the second preference",
        y="mean reward",
        at=wishes,
        series={f"preference {k + 1}": [reward(soup, k) for soup in soups] for k in (0, 1)},
    )
