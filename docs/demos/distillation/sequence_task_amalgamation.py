"""Amalgamating detectors: the student's sequence is that of all teachers side by side, and its tasks are all of theirs."""

import torch
from torch import nn

from docs.demos.picture import Control, Picture
from docs.demos.toys import drawn, generator
from reference_impls.distillation.sequence_task_amalgamation import Detection, sequence_task_amalgamation

CONTROLS = [Control("num_steps", 0, 40, 30, 10), Control("hint_weight", 0.0, 2.0, 1.0, 0.5)]


class Detector(nn.Module):
    """Tokens from an input of six numbers, and a score and a box from each of them."""

    def __init__(self, tokens, classes, seed):
        super().__init__()
        self.read, self.score, self.box = nn.Linear(6, 4 * tokens), nn.Linear(4, 1 + classes), nn.Linear(4, 4)
        self.load_state_dict(drawn(self, seed))

    def forward(self, x):
        tokens = self.read(x).unflatten(1, (-1, 4)).tanh()
        return Detection([tokens], self.score(tokens), self.box(tokens).sigmoid())


def demo(num_steps, hint_weight):
    inputs = torch.randn(10, 6, generator=generator(0))
    teachers, student = [Detector(2, 1, 1), Detector(2, 1, 2)], Detector(4, 2, 3)
    options = {"hint_weight": hint_weight, "lr": 0.03, "generator": generator(0)}
    learned = sequence_task_amalgamation(teachers, student, [inputs], num_steps=num_steps, **options)
    with torch.no_grad():
        wanted = torch.cat([teacher(inputs).sequences[0] for teacher in teachers], dim=1)
        gaps = {
            name: (net(inputs).sequences[0] - wanted).abs().mean(dim=2).mean(dim=0)
            for name, net in (("before", student), ("after", learned))
        }
    return Picture(
        title="Distance of the student's tokens from those of its teachers",
        reading="Tokens 1 and 2 follow the first teacher, 3 and 4 the second; nothing has to be squeezed into one "
        "feature. With weight 0 only the predictions are taught.",
        x="token",
        y="mean difference",
        kind="bar",
        at=["1", "2", "3", "4"],
        series=gaps,
    )
