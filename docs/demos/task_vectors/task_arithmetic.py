"""Task arithmetic on three tasks: the loss of the merged model on each, beside that of the base and of the specialist."""

from docs.demos.picture import Control, Picture
from docs.demos.toys import clusters, loss, mlp, trained
from reference_impls.task_vectors.task_arithmetic import task_arithmetic

CONTROLS = [Control("scaling_coef", 0.0, 1.5, 0.5, 0.1), Control("tasks", 2, 4, 3, 1)]


def demo(scaling_coef, tasks):
    network, data = mlp(2, 16, 2), [clusters(task, tasks) for task in range(tasks)]
    base = trained(network, data, steps=10)
    finetuned = [trained(network, task, start=base, steps=30, lr=0.03) for task in data]
    merged = task_arithmetic(base, finetuned, scaling_coef=scaling_coef)
    return Picture(
        title="Loss on every task: base, sum of task vectors, and the model fine-tuned on that task",
        reading="At coefficient 0 the merge is the base; a part of every task vector helps all tasks, and too much of "
        "their sum takes the network away from what each of them saw.",
        x="task",
        y="loss",
        kind="bar",
        at=[f"task {t}" for t in range(1, tasks + 1)],
        series={
            "base": [loss(network, base, task) for task in data],
            "task arithmetic": [loss(network, merged, task) for task in data],
            "fine-tuned on it": [loss(network, own, task) for own, task in zip(finetuned, data)],
        },
    )
