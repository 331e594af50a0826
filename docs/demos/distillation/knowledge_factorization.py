"""Knowledge factorization: a teacher of two tasks is taken apart into what they share and what each needs."""

from docs.demos.picture import Control, Picture
from docs.demos.toys import blobs, generator, loss_of, staged, teacher
from reference_impls.distillation.knowledge_factorization import knowledge_factorization

CONTROLS = [
    Control("num_steps", 0, 60, 40, 10),
    Control("task_weight", 0.0, 2.0, 1.0, 0.5),
    Control("infomax_weight", 0.0, 2.0, 1.0, 0.5),
]


def demo(num_steps, task_weight, infomax_weight):
    inputs, targets = blobs(classes=4, count=48)
    source = teacher((inputs, targets), widths=(2, 12, 4))
    tasks = [[0, 1], [2, 3]]
    factors = knowledge_factorization(
        source, staged(2, 8, 6), [staged(2, 4, 12) for _ in tasks], [inputs], tasks=tasks,
        infomax_weight=infomax_weight, task_weight=task_weight, num_steps=num_steps, lr=0.02, generator=generator(0),
    )  # fmt: skip
    parts = [(inputs[(targets // 2) == i], targets[(targets // 2) == i] - 2 * i) for i in range(2)]
    of_teacher = [loss_of(lambda x, i=i: source(x)[:, tasks[i]], part) for i, part in enumerate(parts)]
    of_factors = [loss_of(lambda x, i=i: factors(x, [i]), part) for i, part in enumerate(parts)]
    return Picture(
        title="Loss at two tasks: the whole teacher, and the common network with one small network for the task",
        reading="For one task only the common part and that task's own part are needed. With no steps they know nothing.",
        x="task",
        y="loss",
        kind="bar",
        at=["task 1", "task 2"],
        series={"teacher": of_teacher, "common and specific": of_factors},
    )
