"""DAMC keeps the weights for each modality's tokens apart and merges only those for text."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import entries, generator
from reference_impls.averaging.uniform_soup import uniform_soup
from reference_impls.task_vectors.damc import damc, decouple

CONTROLS = [Control("image", 0.0, 1.0, 0.7, 0.1), Control("audio", 0.0, 1.0, 0.3, 0.1)]


def demo(image, audio):
    g = generator(9)
    tuned = {name: {"up.weight": torch.randn(8, generator=g)} for name in ("image", "audio")}
    apart = [decouple(model, name, ["up.weight"]) for name, model in tuned.items()]
    merged = damc(apart, weights=[image, audio])
    rows = {f"{name} model": model["up.weight"] for name, model in tuned.items()}
    rows |= {"averaged": uniform_soup(list(tuned.values()))["up.weight"]}
    rows |= {
        "DAMC, for text": merged["up.weight"],
        "DAMC, for images": merged["image.up.weight"],
        "DAMC, for audio": merged["audio.up.weight"],
    }
    return Picture(
        title="One layer of an image model and of an audio model, averaged and composed",
        reading="Averaging gives every token the same compromise; here tokens of a modality meet the weights that were "
        "trained for them, and only text sees a merge.",
        x="weight",
        y="",
        kind="heat",
        at=entries(8),
        series=rows,
    )
