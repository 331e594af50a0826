"""KnOTS writes all task vectors in one basis before it merges them."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import generator
from reference_impls.task_vectors.knots import knots
from reference_impls.task_vectors.ties_merging import ties_merging

CONTROLS = [Control("density", 0.1, 1.0, 0.5, 0.1), Control("scaling_coef", 0.2, 2.0, 1.0, 0.2), Control("tasks", 2, 5, 3, 1)]


def demo(density, scaling_coef, tasks):
    g = generator(5)
    updates = [torch.randn(12, 2, generator=g) @ torch.randn(2, 12, generator=g) for _ in range(tasks)]
    base, finetuned = {"w": torch.zeros(12, 12)}, [{"w": update} for update in updates]
    ways = {
        "TIES": ties_merging(base, finetuned, density=density, scaling_coef=scaling_coef),
        "KnOTS-TIES": knots(base, finetuned, density=density, scaling_coef=scaling_coef),
    }
    cosine = lambda a, b: (a * b).sum() / (torch.linalg.matrix_norm(a) * torch.linalg.matrix_norm(b))
    return Picture(
        title="Cosine of the merged update with the update of every adapter",
        reading="Both trim and elect signs; TIES does it entry by entry, KnOTS in the basis that the adapters share, where "
        "an entry is a direction of the update.",
        x="adapter",
        y="cosine",
        kind="bar",
        at=[f"adapter {t}" for t in range(1, tasks + 1)],
        series={name: [cosine(m["w"], own) for own in updates] for name, m in ways.items()},
    )
