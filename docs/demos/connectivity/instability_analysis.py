"""Two runs on different examples that part after so many shared steps: the hill between their ends."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import drawn, generator, loss, mlp, moons, trained
from reference_impls.connectivity.instability_analysis import instability_analysis

CONTROLS = [Control("examples", 20, 60, 30, 10), Control("lr", 0.01, 0.1, 0.05, 0.01)]


def demo(examples, lr):
    network, (inputs, targets) = mlp(2, 12, 12, 2), moons()

    def train(theta, start, stop, noise):  # the noise draws which examples a run sees
        seen = torch.randperm(60, generator=noise)[:examples]
        return trained(network, (inputs[seen], targets[seen]), start=theta, steps=stop - start, lr=lr)

    found = instability_analysis(
        drawn(network, 1),
        train,
        lambda theta: loss(network, theta, (inputs, targets)),
        split_steps=(0, 10, 20, 30, 40, 50),
        num_steps=60,
        num_points=7,
        generator=generator(0),
    )
    return Picture(
        title="Loss barrier between two runs of 60 steps, by the step at which they part",
        reading="Runs that part at the start end with a hill between them; after a few shared steps the rest of the training "
        "stays on one side of it.",
        x="shared steps",
        y="barrier",
        at=found.split_steps,
        series={"barrier": found.instability},
    )
