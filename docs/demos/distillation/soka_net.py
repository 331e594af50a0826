"""SOKA-Net balances how strongly each task pulls at the layers that they share."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import clusters, generator, loss_of, staged, teacher
from reference_impls.distillation.soka_net import soka_net

CONTROLS = [Control("num_steps", 0, 60, 40, 10), Control("asymmetry", 0.0, 3.0, 1.5, 0.5)]


def demo(num_steps, asymmetry):
    tasks = [clusters(task, tasks=2, spread=0.8) for task in range(2)]
    inputs = torch.cat([points for points, _ in tasks])
    teachers = [teacher(task, seed, widths=(2, 8, 8, 2)) for seed, task in enumerate(tasks)]
    whole = staged(2, 8, 8, 2)
    heads = [staged(8, 2, seed=seed)[0] for seed in (1, 2)]
    series = {"its teacher": [loss_of(one, task) for one, task in zip(teachers, tasks)]}
    for balance in (False, True):
        learned = soka_net(
            teachers, whole[:2], heads, [inputs], balance=balance, asymmetry=asymmetry, warmup_steps=10,
            num_steps=num_steps, lr=0.02, generator=generator(0),
        )  # fmt: skip
        series["balanced" if balance else "equal weights"] = [
            loss_of(lambda x, i=i, net=learned: net(x)[i], task) for i, task in enumerate(tasks)
        ]
    return Picture(
        title="Loss at two tasks: teachers, and students that share all but their heads",
        reading="The weights move until the tasks pull alike, the one that lags a little more. On two tasks of the same size it "
        "makes little difference.",
        x="task",
        y="loss",
        kind="bar",
        at=["task 1", "task 2"],
        series=series,
    )
