"""Model composition: encoders side by side, language models averaged."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import entries, generator
from reference_impls.task_vectors.naive_mc import naive_mc

CONTROLS = [Control("weight", 0.0, 1.0, 0.5, 0.1)]


def demo(weight):
    g = generator(8)
    draw = lambda: torch.randn(8, generator=g)
    image = {"image.encoder": draw(), "language": draw()}
    audio = {"audio.encoder": draw(), "language": draw()}
    both = naive_mc([image, audio], weights=[weight, 1 - weight])
    return Picture(
        title="The parts of an image model, of an audio model, and of the two composed",
        reading="The encoders come over as they are, and only the language model, which both have, is averaged.",
        x="weight",
        y="",
        kind="heat",
        at=entries(8),
        series={
            "image encoder": image["image.encoder"],
            "its language": image["language"],
            "audio encoder": audio["audio.encoder"],
            "its language ": audio["language"],
            "both: images": both["image.encoder"],
            "both: audio": both["audio.encoder"],
            "both: language": both["language"],
        },
    )
