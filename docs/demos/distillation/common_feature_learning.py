"""Common feature learning: teachers and student meet in a common space, where their features are made alike."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import clusters, generator, staged, teacher
from reference_impls.distillation.common_feature_learning import common_feature_learning

CONTROLS = [Control("alpha", 0.0, 1.0, 0.5, 0.1), Control("num_steps", 0, 40, 20, 5)]


def demo(alpha, num_steps):
    tasks = [clusters(task, tasks=2, spread=0.8) for task in range(2)]
    inputs = torch.cat([points for points, _ in tasks])
    teachers = [teacher(task, seed) for seed, task in enumerate(tasks)]
    student = staged(2, 12, 4)
    options = {"common_width": 8, "sigmas": (1.0, 2.0), "num_steps": num_steps, "lr": 0.02, "generator": generator(0)}
    learned = common_feature_learning(teachers, student, [inputs], alpha=alpha, **options)

    def gap(network):
        with torch.no_grad():
            scores = network(inputs)
            return [(scores[:, 2 * i : 2 * i + 2] - one(inputs)).abs().mean() for i, one in enumerate(teachers)]

    return Picture(
        title="Distance of the student's scores from those of its two teachers",
        reading="The student has seen no label. With alpha 1 only the scores are learned, with alpha 0 only the features,"
        " and then the scores stay apart.",
        x="teacher",
        y="mean difference",
        kind="bar",
        at=["teacher 1", "teacher 2"],
        series={"student before": gap(student), "student after": gap(learned)},
    )
