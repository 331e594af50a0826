"""Task arithmetic in the tangent space: there, what task vectors do to the outputs adds up exactly."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import clusters, logits, mlp, trained
from reference_impls.task_vectors.tangent_task_arithmetic import tangent_task_arithmetic
from reference_impls.task_vectors.task_arithmetic import task_arithmetic

CONTROLS = [Control("num_steps", 10, 60, 40, 10), Control("tasks", 2, 4, 3, 1)]


def demo(num_steps, tasks):
    network, data = mlp(2, 16, 2), [clusters(task, tasks) for task in range(tasks)]
    inputs, base = torch.cat([x for x, _ in data]), trained(network, data, steps=10)
    finetuned = [trained(network, task, start=base, steps=num_steps, lr=0.03) for task in data]
    before, gaps = logits(network, base, inputs), {"network": [], "tangent space": []}
    coefs = torch.linspace(0.2, 1.4, 7)
    for coef in coefs.tolist():
        plain = lambda group: logits(network, task_arithmetic(base, group, scaling_coef=coef), inputs)
        gaps["network"].append(gap(plain(finetuned), [plain([one]) for one in finetuned], before))
        tangent = lambda group: tangent_task_arithmetic(
            network, base, [[task] for task in group], scaling_coef=coef, num_steps=num_steps, lr=0.03
        )(inputs)
        gaps["tangent space"].append(gap(tangent(data), [tangent([task]) for task in data], before))
    return Picture(
        title="What adding all task vectors does to the outputs, against the sum of what each does by itself",
        reading="In the tangent space the outputs are linear in the weights, so that effects add up (0); in the network "
        "itself they disturb each other, the more the larger the coefficient.",
        x="scaling coefficient",
        y="relative difference",
        at=coefs,
        series=gaps,
    )


def gap(together, alone, before):
    expected = sum(one - before for one in alone)
    return (together - before - expected).norm() / expected.norm()
