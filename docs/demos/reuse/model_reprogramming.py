"""A frozen network is made to solve another task by a pattern that is added to every input."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import blobs, generator, mlp, trained
from reference_impls.reuse.model_reprogramming import model_reprogramming

CONTROLS = [Control("steps", 0, 100, 40, 10), Control("shift", 0.0, 4.0, 2.0, 0.5)]


def demo(steps, shift):
    network, (inputs, targets) = mlp(2, 12, 2), blobs(classes=2)
    network.load_state_dict(trained(network, (inputs, targets)))
    moved = inputs + torch.tensor([0.0, shift]) + shift * torch.tensor([1.0, 0.0])
    options = {"output": "frequency", "num_steps": steps, "lr": 0.1, "generator": generator(0)}
    program = model_reprogramming(network, [(moved, targets)], **options)
    said = lambda model, x: 100 * (model(x).argmax(dim=1) == targets).float().mean().item()
    return Picture(
        title="Accuracy of a frozen network at its own task, at the same points moved away, and with a learned pattern",
        reading="The network never changes: the pattern added to the inputs carries the new task to where the old one was.",
        x="",
        y="accuracy, %",
        kind="bar",
        at=["own task", "moved", "moved, with pattern"],
        series={"frozen network": [said(network, inputs), said(network, moved), said(program, moved)]},
    )
