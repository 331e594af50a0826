"""SAM-CLIP: a mask model learns to embed images as well, while it rehearses its masks."""

import torch
from torch import nn

from docs.demos.picture import Control, Picture
from docs.demos.toys import drawn, generator
from reference_impls.distillation.sam_clip import sam_clip

CONTROLS = [Control("rehearsal_weight", 0.0, 20.0, 10.0, 5.0), Control("num_steps", 0, 40, 30, 10)]


class Decoder(nn.Module):
    """Scores of a mask: the features weighed by a function of the prompt."""

    def __init__(self):
        super().__init__()
        self.weigh = nn.Linear(2, 4)

    def forward(self, features, prompts):
        return (self.weigh(prompts)[:, :, None, None] * features).sum(dim=1)


def made(module, seed):
    module.load_state_dict(drawn(module, seed))
    return module


def demo(rehearsal_weight, num_steps):
    g = generator(0)
    images, prompts = torch.randn(12, 1, 5, 5, generator=g), torch.rand(12, 2, generator=g)
    encoder, decoder = made(nn.Conv2d(1, 4, 3, padding=1), 1), made(Decoder(), 2)
    network = made(nn.Sequential(nn.Flatten(), nn.Linear(25, 6)), 3)
    head = made(nn.Conv2d(4, 6, 1), 4)
    gaps = {}
    for name, steps in (("before", 0), ("after", num_steps)):
        merged = sam_clip(
            encoder, decoder, network, head, [(images, prompts)], [images],
            rehearsal_weight=rehearsal_weight, probe_steps=steps, num_steps=steps, lr=0.02,
        )  # fmt: skip
        with torch.no_grad():
            masks = (merged(images, prompts).sigmoid() - decoder(encoder(images), prompts).sigmoid()).abs().mean()
            angle = 1 - nn.functional.cosine_similarity(merged.embed(images), network(images), dim=1).mean()
        gaps[name] = [masks, angle]
    return Picture(
        title="Distance from both teachers: the mask model's masks, and the other network's embeddings",
        reading="The embeddings come near the second teacher; without rehearsal (weight 0) the masks pay for it.",
        x="",
        y="distance",
        kind="bar",
        at=["masks", "embeddings (1 - cosine)"],
        series=gaps,
    )
