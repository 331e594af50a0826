"""Intertwined amalgamation: the student's blocks are trained inside its teachers, and it branches where each task is best."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import clusters, generator, loss_of, staged, teacher
from reference_impls.distillation.intertwined_amalgamation import intertwined_amalgamation

CONTROLS = [Control("num_steps", 0, 60, 30, 10), Control("finetune_steps", 0, 80, 40, 20)]


def demo(num_steps, finetune_steps):
    tasks = [clusters(task, tasks=2, spread=0.8) for task in range(2)]
    inputs = torch.cat([points for points, _ in tasks])
    teachers = [teacher(task, seed, widths=(2, 8, 8, 2)) for seed, task in enumerate(tasks)]
    student = staged(2, 8, 8, 2)[:2]
    learned = intertwined_amalgamation(
        teachers, student, [inputs], num_steps=num_steps, finetune_steps=finetune_steps, lr=0.01, generator=generator(0)
    )
    with torch.no_grad():
        branch = [torch.nn.functional.cross_entropy(learned(x)[i], y) for i, (x, y) in enumerate(tasks)]
    places = " and ".join(str(p + 1) for p in learned.branches_after)
    return Picture(
        title="Loss of two teachers at their tasks, and of one student that has branches for both",
        reading=f"Without a label the student takes over both tasks; now its branches begin after block {places}.",
        x="task",
        y="loss",
        kind="bar",
        at=["task 1", "task 2"],
        series={"its teacher": [loss_of(one, task) for one, task in zip(teachers, tasks)], "student": branch},
    )
