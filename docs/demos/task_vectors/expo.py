"""ExPO goes on past the fine-tuned model, along the line from the base."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import loss, mlp, moons, trained
from reference_impls.task_vectors.expo import expo

CONTROLS = [Control("alpha", 0.0, 2.0, 0.5, 0.1), Control("steps", 5, 60, 15, 5)]


def demo(alpha, steps):
    network, task = mlp(2, 16, 2), moons()
    base = trained(network, task, steps=10, lr=0.02)
    finetuned = trained(network, task, start=base, steps=steps, lr=0.02)
    line = torch.linspace(0, 1 + alpha, 25)
    along = [
        loss(network, expo(base, [finetuned], alpha=float(t) - 1) if t > 1 else between(base, finetuned, t), task) for t in line
    ]
    return Picture(
        title="Loss from the base (0) through the fine-tuned model (1) to the extrapolated one (the end)",
        reading="Where training was stopped early, going on in its direction lowers the loss at no cost; after longer "
        "training, or too far, it rises.",
        x="position on the line",
        y="loss",
        at=line,
        series={"loss": along, "fine-tuned": [loss(network, finetuned, task)] * 25},
    )


def between(a, b, t):
    return {key: (1 - t) * a[key] + t * b[key] for key in a}
