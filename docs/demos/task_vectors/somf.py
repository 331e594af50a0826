"""SoMF learns a mask on the task vectors that keeps the merged model safe."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import entries, generator
from reference_impls.task_vectors.somf import somf
from reference_impls.task_vectors.task_arithmetic import task_arithmetic

CONTROLS = [
    Control("num_steps", 0, 80, 60, 10),
    Control("danger", 0.0, 10.0, 5.0, 1.0),
    Control("temperature", 0.3, 1.0, 0.5, 0.1),
]


def demo(num_steps, danger, temperature):
    g = generator(11)
    moves = torch.randn(12, generator=g)
    guarded = (torch.arange(12) % 3 == 0).float()  # safety needs these where they were
    base, finetuned = {f"w{i}": torch.zeros(1) for i in range(12)}, [{f"w{i}": moves[i : i + 1] for i in range(12)}]
    unsafe = lambda theta: danger * sum(guarded[i] * theta[f"w{i}"].square().sum() for i in range(12))
    masked = somf(base, finetuned, unsafe, num_steps=num_steps, temperature=temperature, rescale=False, final="threshold")
    plain = task_arithmetic(base, finetuned)
    row = lambda model: torch.cat([model[f"w{i}"] for i in range(12)])
    return Picture(
        title="A task vector, the weights that safety depends on, and what the mask lets through",
        reading="Task arithmetic adds everything; the learned mask drops the movements of guarded weights and leaves the rest.",
        x="weight",
        y="",
        kind="heat",
        at=entries(12),
        series={"guarded": guarded, "task arithmetic": row(plain), "SoMF": row(masked)},
    )
