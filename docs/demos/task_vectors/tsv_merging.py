"""TSV-M keeps the strongest directions of every task and makes them orthogonal to those of the others."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import generator
from reference_impls.task_vectors.task_arithmetic import task_arithmetic
from reference_impls.task_vectors.tsv_merging import tsv_merging

CONTROLS = [Control("tasks", 2, 5, 4, 1), Control("overlap", 0.0, 1.0, 0.7, 0.1), Control("scaling_coef", 0.2, 1.4, 1.0, 0.2)]


def demo(tasks, overlap, scaling_coef):
    g = generator(1)
    common = torch.randn(12, 2, generator=g)
    inputs = [overlap * common + (1 - overlap) * torch.randn(12, 2, generator=g) for _ in range(tasks)]
    updates = [torch.randn(12, 2, generator=g) @ x.T for x in inputs]
    base, finetuned = {"w": torch.zeros(12, 12)}, [{"w": update} for update in updates]
    ways = {
        "sum": task_arithmetic(base, finetuned, scaling_coef=scaling_coef),
        "TSV-M": tsv_merging(base, finetuned, scaling_coef=scaling_coef),
    }
    wrong = lambda w, x, own: torch.linalg.matrix_norm((w - own) @ x) / torch.linalg.matrix_norm(own @ x)
    return Picture(
        title="Error of the merged layer on the inputs of every task",
        reading="Tasks whose inputs overlap disturb each other in the sum; with their singular vectors made orthogonal "
        "they disturb each other less.",
        x="task",
        y="relative error",
        kind="bar",
        at=[f"task {t}" for t in range(1, tasks + 1)],
        series={name: [wrong(m["w"], x, own) for x, own in zip(inputs, updates)] for name, m in ways.items()},
    )
