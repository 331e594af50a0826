"""PCB-Merging: parameters compete within a model and between models, and the winners are rescaled."""

from docs.demos.picture import Control, Picture
from docs.demos.toys import entries, task_vectors
from reference_impls.averaging.uniform_soup import uniform_soup
from reference_impls.task_vectors.pcb_merging import pcb_merging

CONTROLS = [Control("density", 0.1, 1.0, 0.4, 0.1), Control("scaling_coef", 0.2, 2.0, 1.2, 0.2)]


def demo(density, scaling_coef):
    base, finetuned = task_vectors()
    merged = pcb_merging(base, finetuned, density=density, scaling_coef=scaling_coef)
    return Picture(
        title="Three task vectors, their mean, and what the competition leaves",
        reading="An entry wins if it is large in its own model and agrees with the others; the weights of the mean are those "
        "of its balance, and what loses everywhere is zero.",
        x="weight",
        y="model",
        kind="heat",
        at=entries(12),
        series={f"model {i}": model["w"] for i, model in enumerate(finetuned, 1)}
        | {"mean": uniform_soup(finetuned)["w"], "PCB": merged["w"]},
    )
