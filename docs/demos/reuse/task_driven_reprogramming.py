"""Task-driven reprogramming: a frozen network is first turned towards the task, and then teaches a small one."""

from docs.demos.picture import Control, Picture
from docs.demos.toys import clusters, generator, loss_of, moons, staged, teacher
from reference_impls.reuse.task_driven_reprogramming import task_driven_reprogramming

CONTROLS = [Control("distill_weight", 0.0, 2.0, 1.0, 0.5), Control("num_steps", 10, 60, 40, 10), Control("width", 4, 12, 8, 4)]


def demo(distill_weight, num_steps, width):
    few, many = moons(1, count=16, noise=0.25), moons(3, count=100, noise=0.25)
    large = teacher(clusters(0, tasks=2), widths=(2, 24, 24, 2))  # trained for another task
    student, losses = staged(2, 6, 6, 6, 2), {}
    for name, weight in (("labels only", 0.0), ("reprogrammed", distill_weight)):
        learned = task_driven_reprogramming(
            large, student, [few], width=width, distill_weight=weight, proxy_steps=num_steps, num_steps=num_steps, lr=0.02,
            generator=generator(0),
        )  # fmt: skip
        losses[name] = [loss_of(learned, few), loss_of(learned, many)]
    return Picture(
        title="Loss of a small network, taught by labels only or also by a large network from another task",
        reading="What the large network knows is projected into a space of the task and distilled from there. On a task "
        "so small it helps the little that the bars show.",
        x="",
        y="loss",
        kind="bar",
        at=["16 labelled points", "100 new points"],
        series=losses,
    )
