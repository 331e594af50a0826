"""RAM averages only what several models moved; what one model moved by itself stays whole."""

from docs.demos.picture import Control, Picture
from docs.demos.toys import entries, task_vectors
from reference_impls.averaging.uniform_soup import uniform_soup
from reference_impls.task_vectors.ram import ram

CONTROLS = [Control("eps", 0.0, 1.0, 0.3, 0.1), Control("models", 2, 5, 3, 1)]


def demo(eps, models):
    base, finetuned = task_vectors(seed=2, count=models, share=0.4)
    merged = ram(base, finetuned, eps=eps)
    return Picture(
        title="Task vectors, their mean, and the mean over the models that moved a weight",
        reading="Where one model alone moves a weight by more than eps, RAM keeps the whole movement and the mean a fraction "
        "of it.",
        x="weight",
        y="model",
        kind="heat",
        at=entries(12),
        series={f"model {i}": model["w"] for i, model in enumerate(finetuned, 1)}
        | {"mean": uniform_soup(finetuned)["w"], "RAM": merged["w"]},
    )
