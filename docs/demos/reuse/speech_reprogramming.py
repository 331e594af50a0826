"""Speech reprogramming: small layers between the frozen layers of an encoder carry it to another language."""

import torch
from torch import nn

from docs.demos.picture import Control, Picture
from docs.demos.toys import drawn, generator
from reference_impls.reuse.speech_reprogramming import speech_reprogramming

CONTROLS = [Control("rank", 1, 6, 3, 1), Control("num_steps", 0, 60, 40, 10)]


def demo(rank, num_steps):
    encoder, g = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh()), generator(0)
    encoder.load_state_dict(drawn(encoder, 1))
    units = torch.randint(0, 3, (6, 10), generator=g)
    sounds = torch.randn(3, 4, generator=g)
    frames = sounds[units] + 0.5 * torch.randn(6, 10, 4, generator=g)
    losses = []
    for places, steps in (([], num_steps), ([0], num_steps), (None, num_steps)):
        model = speech_reprogramming(
            encoder, [(frames, units)], places=places, rank=rank, num_steps=steps, lr=0.02, generator=generator(0)
        )
        with torch.no_grad():
            losses.append(nn.functional.cross_entropy(model(frames).flatten(0, 1), units.flatten()))
    return Picture(
        title="Loss on the units of a new language, by where reprogramming layers stand",
        reading="The encoder never changes. A new output layer alone gets some way; a correction of its input, and of the"
        " hidden features, gets further.",
        x="",
        y="loss",
        kind="bar",
        at=["output only", "input", "input and hidden"],
        series={"loss": losses},
    )
