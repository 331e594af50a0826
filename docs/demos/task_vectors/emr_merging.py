"""EMR-Merging keeps one model, and for every task a mask and one number to come back to it."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import task_vectors
from reference_impls.averaging.uniform_soup import uniform_soup
from reference_impls.task_vectors.emr_merging import emr_merging

CONTROLS = [Control("models", 2, 6, 4, 1), Control("share", 0.1, 1.0, 0.5, 0.1)]


def demo(models, share):
    base, finetuned = task_vectors(seed=3, size=60, count=models, share=share)
    merged = emr_merging(base, finetuned)
    ways = {
        "mean": [uniform_soup(finetuned)] * models,
        "unified": [merged.unified] * models,
        "masked and rescaled": [merged.model(task) for task in range(models)],
    }
    distance = lambda a, b: torch.linalg.vector_norm(a["w"] - b["w"]) / torch.linalg.vector_norm(b["w"])
    return Picture(
        title="Distance from every fine-tuned model, as a share of its task vector",
        reading="The mean is far from all of them; the mask takes the entries of the other sign away, and the rescaler "
        "brings the length back.",
        x="task",
        y="distance",
        kind="bar",
        at=[f"task {t}" for t in range(1, models + 1)],
        series={way: [distance(m, own) for m, own in zip(made, finetuned)] for way, made in ways.items()},
    )
