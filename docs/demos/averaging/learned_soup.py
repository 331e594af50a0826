"""Coefficients of a soup learned on held-out data: what they leave out, and what that is worth."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import generator, loss, mlp, moons, trained
from reference_impls.averaging.learned_soup import learned_soup
from reference_impls.averaging.uniform_soup import uniform_soup

CONTROLS = [Control("num_steps", 0, 80, 40, 10), Control("noise", 0.0, 2.0, 1.0, 0.25)]


def demo(num_steps, noise):
    network, train, held_out, test = mlp(2, 12, 2), moons(0), moons(1), moons(2, count=200)
    base = trained(network, train, steps=20)
    models = [trained(network, train, start=base, steps=20, lr=0.01 * (i + 1)) for i in range(4)]
    models += [{key: w + noise * torch.randn(w.shape, generator=generator(i)) for key, w in models[i].items()} for i in range(2)]
    counted = range(0, num_steps + 1, 10)
    score = lambda theta: loss(network, theta, test).item()
    learned = [score(learned_soup(models, network, [held_out], num_steps=n)) for n in counted]
    return Picture(
        title="Test loss of the soup of four good models and two spoiled ones",
        reading="The learned coefficients move away from the spoiled models; the uniform soup has to take them.",
        x="steps",
        y="test loss",
        at=list(counted),
        kind="dot" if num_steps == 0 else "line",
        series={"uniform soup": [score(uniform_soup(models))] * len(learned), "learned soup": learned},
    )
