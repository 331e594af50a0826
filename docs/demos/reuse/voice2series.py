"""Voice2Series: a time series is put into a learned waveform, and a frozen speech model classifies it."""

import torch
from torch import nn

from docs.demos.picture import Control, Picture
from docs.demos.toys import drawn, generator
from reference_impls.reuse.voice2series import voice2series

CONTROLS = [Control("num_steps", 0, 60, 40, 10), Control("segments", 1, 3, 1, 1)]


def demo(num_steps, segments):
    network, g = nn.Sequential(nn.Linear(40, 16), nn.Tanh(), nn.Linear(16, 6)), generator(0)
    network.load_state_dict(drawn(network, 1))
    targets = torch.arange(30) % 2
    time = torch.arange(10.0)
    waves = torch.where(targets[:, None] == 0, (0.6 * time).sin(), (1.2 * time).sin())
    series = waves + 0.3 * torch.randn(30, 10, generator=g)
    options = {"length": 40, "segments": segments, "generator": generator(0)}
    program = voice2series(network, [(series, targets)], num_steps=num_steps, **options)
    with torch.no_grad():
        heard = program.utterance(series[:1])[0]
        empty = program.utterance(torch.zeros(1, 10))[0]
        loss = nn.functional.nll_loss(program(series), targets)
    return Picture(
        title=f"What the speech model hears; loss {float(loss):.2f}",
        reading="The series stands at the start (and again, with more segments); all around it is the one waveform that "
        "was learned. The model itself never changes.",
        x="sample",
        y="value",
        at=torch.arange(40.0),
        series={"learned waveform": empty, "with a series in it": heard},
    )
