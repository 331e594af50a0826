"""Dual-GAN amalgamation: a generator makes inputs that the teachers are sure of, and the student learns on them."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import clusters, generator, staged, teacher
from reference_impls.distillation.dual_gan_amalgamation import dual_gan_amalgamation

CONTROLS = [Control("generator_steps", 0, 60, 30, 10), Control("num_steps", 0, 80, 50, 10)]


def demo(generator_steps, num_steps):
    tasks = [clusters(task, tasks=2, spread=0.8) for task in range(2)]
    inputs = torch.cat([points for points, _ in tasks])
    teachers = [teacher(task, seed) for seed, task in enumerate(tasks)]
    student = staged(2, 8, 4)
    options = {"noise_size": 4, "batch_size": 32, "lr": 0.02, "generator": generator(0)}
    learned = dual_gan_amalgamation(teachers, student, (2,), generator_steps=generator_steps, num_steps=num_steps, **options)

    def gap(network):
        with torch.no_grad():
            p = network(inputs).sigmoid()
            return [(p[:, 2 * i : 2 * i + 2] - one(inputs).sigmoid()).abs().mean() for i, one in enumerate(teachers)]

    return Picture(
        title="Distance of the student's probabilities from those of its teachers, on data that nobody showed it",
        reading="The generator learns from the teachers alone what an input looks like that they recognise; the student "
        "comes near both teachers without a single real input.",
        x="teacher",
        y="mean difference",
        kind="bar",
        at=["teacher 1", "teacher 2"],
        series={"before": gap(student), "after": gap(learned)},
    )
