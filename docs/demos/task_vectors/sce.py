"""SCE selects the positions on which models differ, weighs the models there, and erases the minority sign."""

from docs.demos.picture import Control, Picture
from docs.demos.toys import entries, task_vectors
from reference_impls.averaging.uniform_soup import uniform_soup
from reference_impls.task_vectors.sce import sce

CONTROLS = [Control("density", 0.1, 1.0, 0.5, 0.1), Control("models", 2, 5, 3, 1)]


def demo(density, models):
    base, finetuned = task_vectors(count=models)
    merged = sce(base, finetuned, density=density)
    return Picture(
        title="Task vectors, their mean, and what SCE makes of them",
        reading="Positions on which the models hardly differ go back to the base; elsewhere the models that agree with the "
        "larger movement are averaged, the ones that moved farther with more weight.",
        x="weight",
        y="model",
        kind="heat",
        at=entries(12),
        series={f"model {i}": model["w"] for i, model in enumerate(finetuned, 1)}
        | {"mean": uniform_soup(finetuned)["w"], "SCE": merged["w"]},
    )
