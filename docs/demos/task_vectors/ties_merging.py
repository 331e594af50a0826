"""TIES on three fine-tuned models of twelve weights: what is trimmed, which sign is elected, what is left to average."""

from docs.demos.picture import Control, Picture
from docs.demos.toys import entries, task_vectors
from reference_impls.averaging.uniform_soup import uniform_soup
from reference_impls.task_vectors.ties_merging import ties_merging

CONTROLS = [Control("density", 0.1, 1.0, 0.4, 0.1), Control("scaling_coef", 0.0, 2.0, 1.0, 0.1)]


def demo(density, scaling_coef):
    base, finetuned = task_vectors()
    merged = ties_merging(base, finetuned, density=density, scaling_coef=scaling_coef)
    mean = uniform_soup(finetuned)
    return Picture(
        title="Three task vectors, their mean, and what TIES makes of them",
        reading="Where two models disagree in sign the mean shrinks; TIES keeps the side that weighs more, and sets "
        "to zero what no model keeps.",
        x="weight",
        y="model",
        kind="heat",
        at=entries(12),
        series={f"model {i}": model["w"] for i, model in enumerate(finetuned, 1)} | {"mean": mean["w"], "TIES": merged["w"]},
    )
