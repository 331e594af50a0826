"""Discovering new classes without forgetting: new branches learn beside the known network and are folded into it."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import blobs, generator, mlp, trained
from reference_impls.reuse.adaptive_discovering_merging import adaptive_discovering_merging

CONTROLS = [
    Control("contrast_steps", 0, 30, 20, 10),
    Control("num_steps", 0, 100, 80, 20),
    Control("distillation", 0.0, 1.0, 0.1, 0.1),
]


def demo(contrast_steps, num_steps, distillation):
    network, (inputs, targets) = mlp(2, 12, 2), blobs(0, classes=4, count=80, spread=0.3)
    known = targets < 2
    network.load_state_dict(trained(network, (inputs[known], targets[known]), steps=40))
    merged = adaptive_discovering_merging(
        network, inputs[~known], num_new=2, distillation=distillation, contrast_steps=contrast_steps, num_steps=num_steps,
        lr=0.02, batch_size=40, generator=generator(0),
    )  # fmt: skip
    with torch.no_grad():
        scores = merged(inputs)
    p = torch.cat([scores[:, :2].softmax(dim=1), scores[:, 2:].softmax(dim=1)], dim=1)
    return Picture(
        title="Mean probability of the outputs by the true class, the known two and the new two each among themselves",
        reading="Outputs 3 and 4 were found in unlabelled data, in either order: new classes are told apart there, and known ones are "
        "still told apart by outputs 1 and 2.",
        x="output",
        y="",
        kind="heat",
        at=["1", "2", "3", "4"],
        series={f"{'known' if c < 2 else 'new'} class {c + 1}": p[targets == c].mean(dim=0) for c in range(4)},
    )
