"""Modality arithmetic adds what every modality changed in a common seed, layer by layer where it has the layer."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import entries, generator
from reference_impls.task_vectors.modality_arithmetic import modality_arithmetic

CONTROLS = [Control("scaling_coef", 0.0, 1.0, 0.5, 0.1)]


def demo(scaling_coef):
    g = generator(10)
    draw = lambda: torch.randn(6, generator=g)
    seed = {"lower": draw(), "upper": draw()}
    vision = {name: values + 0.8 * draw() for name, values in seed.items()}
    cross = {"upper": seed["upper"] + 0.8 * draw()}  # the cross-modal part has the upper layer only
    merged = modality_arithmetic(seed, [vision, cross], scaling_coef=scaling_coef)
    rows = {"seed": seed, "vision": vision, "cross-modal": cross, "merged": merged}
    return Picture(
        title="Two layers of the seed, of two modalities trained from it, and of their merge",
        reading="The lower layer moves with the vision model alone, the upper one by the sum of both movements, each times the "
        "scaling coefficient.",
        x="weight",
        y="",
        kind="heat",
        at=entries(6),
        series={f"{name}, {layer}": values for name, model in rows.items() for layer, values in model.items()},
    )
