"""Arcee Fusion takes from the second model only the weights whose change stands out."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import entries, generator
from reference_impls.averaging.uniform_soup import uniform_soup
from reference_impls.task_vectors.arcee_fusion import arcee_fusion

CONTROLS = [Control("whiskers", 0.0, 3.0, 1.5, 0.5), Control("outliers", 1, 8, 3, 1)]


def demo(whiskers, outliers):
    g = generator(3)
    a = torch.randn(24, generator=g)
    b = a + 0.15 * torch.randn(24, generator=g)
    b[3 : 3 + 2 * outliers : 2] += 1.2
    models = [{"w": a}, {"w": b}]
    fused = arcee_fusion(*models, whiskers=whiskers)
    mean = uniform_soup(models)
    return Picture(
        title="What the second model changed, and how much of it two merges take over",
        reading="The mean takes half of every change; the fusion takes a change whole or not at all, by how far its "
        "importance lies above the median.",
        x="weight",
        y="change",
        kind="bar",
        at=entries(24),
        series={"second model": b - a, "mean": mean["w"] - a, "Arcee Fusion": fused["w"] - a},
    )
