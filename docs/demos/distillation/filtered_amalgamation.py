"""Filtered amalgamation: a student answers just those questions of several teachers that are wanted."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import clusters, generator, staged, teacher
from reference_impls.distillation.filtered_amalgamation import filtered_amalgamation

CONTROLS = [Control("num_steps", 0, 60, 30, 10), Control("finetune_steps", 0, 80, 40, 20)]


def demo(num_steps, finetune_steps):
    tasks = [clusters(task, tasks=2, spread=0.8) for task in range(2)]
    inputs = torch.cat([points for points, _ in tasks])
    teachers = [teacher(task, seed) for seed, task in enumerate(tasks)]
    student = staged(2, 8, 2)[:1]
    wanted = [[1], [0]]  # of the first teacher its second score, of the other its first
    options = {"targets": "soft", "lr": 0.02, "generator": generator(0)}
    learned = filtered_amalgamation(
        teachers, student, [inputs], wanted, num_steps=num_steps, finetune_steps=finetune_steps, **options
    )
    with torch.no_grad():
        answers = torch.cat([one(inputs)[:, picked] for one, picked in zip(teachers, wanted)], dim=1).sigmoid()
        gap = (learned(inputs).sigmoid() - answers).abs().mean(dim=0)
        guess = (0.5 - answers).abs().mean(dim=0)
    return Picture(
        title="Distance of the student's probabilities from the wanted answers of the teachers",
        reading="What is not asked for is never learned. The student is built block by block and then tuned as a whole; with no "
        "steps it is near a guess.",
        x="question",
        y="mean difference",
        kind="bar",
        at=["of teacher 1", "of teacher 2"],
        series={"always 0.5": guess, "student": gap},
    )
