"""Two teachers, each at a task of its own, and one student that learns from both without a label."""

import torch
from torch import nn

from docs.demos.picture import Control, Picture
from docs.demos.toys import clusters, drawn, generator, mlp, trained
from reference_impls.distillation.layerwise_amalgamation import layerwise_amalgamation

CONTROLS = [Control("steps", 0, 160, 80, 20)]


def demo(steps):
    tasks = [clusters(task, tasks=2) for task in range(2)]
    inputs = torch.cat([points for points, _ in tasks])
    teachers = []
    for seed, task in enumerate(tasks):
        teacher = mlp(2, 8, 2)
        teacher.load_state_dict(trained(teacher, task, seed))
        teachers.append(nn.Sequential(nn.Sequential(*teacher[:2]), teacher[2]))
    student = mlp(2, 16, 4)
    student.load_state_dict(drawn(student, 5))
    student = nn.Sequential(nn.Sequential(*student[:2]), student[2])
    learned = layerwise_amalgamation(teachers, student, [inputs], num_steps=steps, generator=generator(0))

    def right(network, task, columns):
        with torch.no_grad():
            return 100 * (network(task[0])[:, columns].argmax(dim=1) == task[1]).float().mean().item()

    parts = [slice(0, 2), slice(2, 4)]
    return Picture(
        title="Accuracy at both tasks: each teacher at its own, the student before and after",
        reading="The student has the outputs of both teachers and learns them from unlabelled inputs; its layers are "
        "pulled towards the teachers' one by one.",
        x="task",
        y="accuracy, %",
        kind="bar",
        at=["task 1", "task 2"],
        series={
            "its teacher": [right(teacher, task, slice(0, 2)) for teacher, task in zip(teachers, tasks)],
            "student before": [right(student, task, part) for task, part in zip(tasks, parts)],
            "student after": [right(learned, task, part) for task, part in zip(tasks, parts)],
        },
    )
