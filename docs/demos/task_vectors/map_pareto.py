"""MAP fits a quadratic to the metric of every task and reads the trade-offs between tasks from it."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import clusters, loss, mlp, trained
from reference_impls.task_vectors.map_pareto import map_pareto
from reference_impls.task_vectors.task_arithmetic import task_arithmetic

CONTROLS = [Control("num_samples", 6, 30, 15, 3), Control("steps", 10, 50, 30, 10)]


def demo(num_samples, steps):
    network, tasks = mlp(2, 8, 2), [clusters(task, tasks=2) for task in range(2)]
    base = trained(network, tasks, steps=5)
    finetuned = [trained(network, task, start=base, steps=steps, lr=0.03) for task in tasks]
    metrics = [lambda theta, task=task: -float(loss(network, theta, task)) for task in tasks]
    found = map_pareto(base, finetuned, metrics, num_samples=num_samples, population=4)
    line = torch.linspace(0, 1, 11)  # from the second task's coefficients to the first's
    models = [task_arithmetic(base, finetuned, weights=[float(c), 1 - float(c)]) for c in line]
    curves = {f"task {t}, measured": [metric(model) for model in models] for t, metric in enumerate(metrics, 1)}
    coefs = torch.stack([line, 1 - line], dim=1).double()
    curves |= {f"task {t}, fitted": surrogate(coefs) for t, surrogate in enumerate(found.surrogates, 1)}
    return Picture(
        title="Minus the loss of two tasks as their coefficients trade places, and the quadratic fitted to a few samples",
        reading="Every point costs an evaluation; the quadratics cost none, and the front of best compromises is searched on "
        "them.",
        x="coefficient of task 1 (the other has the rest)",
        y="minus the loss",
        at=line,
        series=curves,
    )
