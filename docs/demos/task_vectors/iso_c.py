"""Iso-C gives all directions of the summed task vectors one strength."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import generator
from reference_impls.task_vectors.iso_c import iso_c
from reference_impls.task_vectors.task_arithmetic import task_arithmetic

CONTROLS = [Control("tasks", 2, 6, 3, 1), Control("rank", 1, 4, 2, 1), Control("scaling_coef", 0.2, 2.0, 1.0, 0.2)]


def demo(tasks, rank, scaling_coef):
    g = generator(0)
    shared = torch.randn(8, 1, generator=g) @ torch.randn(1, 8, generator=g)
    own = [torch.randn(8, rank, generator=g) @ torch.randn(rank, 8, generator=g) for _ in range(tasks)]
    base, finetuned = {"w": torch.zeros(8, 8)}, [{"w": 0.6 * shared + 0.3 * one} for one in own]
    added = task_arithmetic(base, finetuned, scaling_coef=scaling_coef)
    even = iso_c(base, finetuned, scaling_coef=scaling_coef)
    return Picture(
        title="Singular values of the merged update",
        reading="In the sum a few directions that tasks share drown the others; Iso-C keeps the directions and gives each "
        "the mean strength.",
        x="direction",
        y="singular value",
        kind="dot",
        at=[str(i) for i in range(1, 9)],
        series={name: torch.linalg.svdvals(model["w"]) for name, model in (("sum", added), ("Iso-C", even))},
    )
