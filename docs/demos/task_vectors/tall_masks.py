"""TALL masks find in the sum of all task vectors the part that belongs to each task."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import task_vectors
from reference_impls.task_vectors.tall_masks import tall_masks
from reference_impls.task_vectors.task_arithmetic import task_arithmetic

CONTROLS = [Control("threshold", 0.0, 2.0, 0.4, 0.1), Control("share", 0.1, 0.9, 0.3, 0.1)]


def demo(threshold, share):
    base, finetuned = task_vectors(seed=4, size=80, count=4, share=share)
    masked, total = tall_masks(base, finetuned, threshold=threshold), task_arithmetic(base, finetuned)
    distance = lambda a, b: torch.linalg.vector_norm(a["w"] - b["w"]) / torch.linalg.vector_norm(b["w"])
    return Picture(
        title="Distance from every fine-tuned model, before and after its mask",
        reading="The sparser the task vectors, the less the tasks overlap, and the nearer a binary mask on their sum comes to "
        "each model. Threshold 0 is the sum itself.",
        x="task",
        y="distance",
        kind="bar",
        at=[f"task {t}" for t in range(1, 5)],
        series={
            "sum": [distance(total, own) for own in finetuned],
            "sum under the mask": [distance(masked.model(t), own) for t, own in enumerate(finetuned)],
        },
    )
