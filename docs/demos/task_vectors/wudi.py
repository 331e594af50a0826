"""WUDI finds the merged layer whose difference from every task vector lies outside what that task uses."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import generator
from reference_impls.task_vectors.task_arithmetic import task_arithmetic
from reference_impls.task_vectors.wudi import wudi

CONTROLS = [Control("num_steps", 0, 200, 60, 20), Control("lr", 0.0, 0.02, 0.005, 0.001), Control("tasks", 2, 4, 3, 1)]


def demo(num_steps, lr, tasks):
    g = generator(2)
    inputs = [torch.randn(10, 2, generator=g) for _ in range(tasks)]
    updates = [0.3 * torch.randn(10, 2, generator=g) @ x.T for x in inputs]
    base, finetuned = {"w": torch.zeros(10, 10)}, [{"w": update} for update in updates]
    ways = {"sum": task_arithmetic(base, finetuned), "WUDI": wudi(base, finetuned, num_steps=num_steps, lr=max(lr, 1e-6))}
    wrong = lambda w, x, own: torch.linalg.matrix_norm((w - own) @ x) / torch.linalg.matrix_norm(own @ x)
    return Picture(
        title="Error of the merged layer on the inputs of every task",
        reading="A task vector's rows span the inputs that it was trained on, so the disturbance between tasks can be "
        "lowered without data: no steps is the sum, more steps bring every task closer.",
        x="task",
        y="relative error",
        kind="bar",
        at=[f"task {t}" for t in range(1, tasks + 1)],
        series={name: [wrong(m["w"], x, own) for x, own in zip(inputs, updates)] for name, m in ways.items()},
    )
