"""Two tasks whose losses are parabolas: task arithmetic goes too far, weighing by curvature lands at the joint minimum."""

import torch

from docs.demos.picture import Control, Picture
from reference_impls.averaging.uncertainty_gradient_matching import uncertainty_gradient_matching
from reference_impls.task_vectors.task_arithmetic import task_arithmetic

CONTROLS = [Control("curvature", 0.5, 8.0, 4.0, 0.5), Control("delta", 0.0, 20.0, 0.0, 1.0)]


def demo(curvature, delta):
    # pre-training keeps the weight at 0; the tasks pull it to 1 with curvature 1 and to 3 with the given one
    base, h0, h = {"w": torch.zeros(1)}, 1.0, [1.0, curvature]
    finetuned = [{"w": torch.tensor([h[t] * place / (h0 + h[t])])} for t, place in enumerate((1.0, 3.0))]
    fishers = [{"w": torch.tensor([value])} for value in h]
    matched = uncertainty_gradient_matching(base, finetuned, {"w": torch.tensor([h0])}, fishers, delta=delta)["w"].item()
    summed = task_arithmetic(base, finetuned)["w"].item()
    total = lambda w: 0.5 * (h0 * w**2 + h[0] * (w - 1) ** 2 + h[1] * (w - 3) ** 2)
    places = [i / 5 for i in range(21)]
    return Picture(
        title="Loss of pre-training and both tasks together, by the value of the one weight",
        reading="Each model's own change is already the answer of its task and the pre-training; adding them overshoots, "
        "and weighing "
        "them by curvature finds the minimum.",
        x="weight",
        y="loss",
        kind="scatter",
        series={
            "loss": (places, [total(w) for w in places]),
            "task arithmetic": ([summed], [total(summed)]),
            "gradient matching": ([matched], [total(matched)]),
        },
    )
