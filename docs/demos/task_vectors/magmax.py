"""MagMax takes every weight from the model that moved it the farthest."""

from docs.demos.picture import Control, Picture
from docs.demos.toys import entries, task_vectors
from reference_impls.averaging.uniform_soup import uniform_soup
from reference_impls.task_vectors.magmax import magmax

CONTROLS = [Control("models", 2, 5, 3, 1), Control("scaling_coef", 0.0, 1.0, 0.5, 0.1)]


def demo(models, scaling_coef):
    base, finetuned = task_vectors(count=models)
    merged = magmax(base, finetuned, scaling_coef=scaling_coef)
    return Picture(
        title="Task vectors, their mean, and the largest movement of every weight",
        reading="The mean shrinks with every model that stays still; MagMax keeps the farthest movement with its sign, times "
        "the scaling coefficient.",
        x="weight",
        y="model",
        kind="heat",
        at=entries(12),
        series={f"model {i}": model["w"] for i, model in enumerate(finetuned, 1)}
        | {"mean": uniform_soup(finetuned)["w"], "MagMax": merged["w"]},
    )
