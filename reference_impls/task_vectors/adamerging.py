r"""AdaMerging (yang2024adamerging).

Task arithmetic scales all task vectors by one number that somebody has to choose. AdaMerging learns the numbers, one a
task or one a task and layer, without labels: a model that is good at its input is sure of its output, so the
coefficients are trained to make the predictions of the merged model certain on unlabeled inputs of all the tasks.

Notation: theta_0 the base model, tau_k = theta_k - theta_0 the task vector of model k, lambda_k^l its coefficient in
layer l, B_k a batch of inputs of task k, H the entropy of a prediction in nats.

Departures: every step sees the same batches, so that a run is deterministic; the paper draws new ones. A layer is here
one tensor of the state dict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from reference_impls.core.descent import outputs
from reference_impls.core.selection import count_kept, keep_largest
from reference_impls.core.state_dict import StateDict, Vector, flatten, task_vector, to_state_dict, to_vector, unflatten


def adamerging(
    base: StateDict,
    finetuned: Sequence[StateDict],
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    level: Literal["layer", "task"] = "layer",
    plus_plus: bool = False,
    initial: float = 0.3,
    num_steps: int = 500,
    lr: float = 1e-3,
    clamp: bool = True,
    progress: Callable[[int, float], None] | None = None,
) -> StateDict:
    r"""Learn the coefficients of task vectors by minimising the entropy of predictions.

    $$
    \theta^l = \theta_0^l + \sum_k \lambda_k^l\,\tau_k^l, \qquad
    \min_\lambda \sum_k \frac{1}{|B_k|}\sum_{x \in B_k} H\big(f(x;\theta)\big), \qquad
    H(z) = -\sum_c \mathrm{softmax}(z)_c \log \mathrm{softmax}(z)_c
    $$

    Args:
        base: $\theta_0$, the pre-trained model that all the others were fine-tuned from.
        finetuned: $\theta_1 \dots \theta_n$, n >= 1.
        network: f, maps inputs to logits (batch, classes); in evaluation mode; its own parameters are
            neither used nor changed.
        batches: (inputs, targets) of every task, at best one batch a task of equal size; the targets are not used.
        level: "layer" learns one coefficient a task and tensor, "task" one a task. Default "layer": the better
            variant in the paper.
        plus_plus: True puts each task vector through `trim_and_elect` before its coefficients are learnt
            (AdaMerging++). Default False: plain AdaMerging.
        initial: all coefficients at the start. Default 0.3: the authors' code.
        num_steps: steps of Adam, >= 0. Default 500: the authors' code.
        lr: step size of Adam. Default 0.001: the authors' code.
        clamp: True keeps the coefficients in [0, 1]; False lets them go anywhere (FusionBench). Default True: the
            authors' code.
        progress: called with the step and the summed entropy.

    Returns:
        A new state dict, structured as `base`.

    Raises:
        ValueError: no models, models of another structure, no batches, an unknown level, a negative number of steps.

    Example:
        Without steps the coefficients stay as they are: 0 + 0.3 * 2 + 0.3 * 1.

        >>> network = nn.Linear(1, 2, bias=False)
        >>> model = lambda x: {"weight": torch.full((2, 1), x)}
        >>> batches = [(torch.ones(4, 1), torch.zeros(4))]
        >>> adamerging(model(0.0), [model(2.0), model(1.0)], network, batches, num_steps=0)
        {'weight': tensor([[0.9000],
                [0.9000]])}

    References:
        yang2024adamerging, task-wise and layer-wise AdaMerging and their entropy minimisation.
    """
    if level not in ("layer", "task"):
        raise ValueError(f"level is {level!r}; it is layer or task")
    if num_steps < 0:
        raise ValueError(f"num_steps is {num_steps}; it is at least 0")
    if not finetuned:
        raise ValueError("received no fine-tuned models; at least one is needed")
    inputs = [x for x, _ in batches]
    if not inputs:
        raise ValueError("received no batches; at least one is needed")

    task_vectors = [task_vector(model, base) for model in finetuned]
    if plus_plus:
        task_vectors = trim_and_elect(task_vectors)
    theta_0 = to_vector(base)
    size = len(theta_0) if level == "layer" else 1
    start = torch.full((len(finetuned), size), float(initial), device=inputs[0].device)

    def entropy(coefficients: Tensor) -> Tensor:
        theta = _combine(theta_0, task_vectors, coefficients)
        return sum(prediction_entropy(outputs(network, theta, x, like=base)) for x in inputs)

    coefficients = _minimise(entropy, start, num_steps, lr, clamp, progress)
    return to_state_dict(_combine(theta_0, task_vectors, coefficients), like=base)


def trim_and_elect(task_vectors: Sequence[Vector], density: float = 0.2) -> list[Vector]:
    r"""Clean task vectors as TIES does, but keep them apart: trim each, and drop what disagrees with the elected sign.

    Args:
        task_vectors: $\tau_1 \dots \tau_n$.
        density: fraction of each task vector's entries kept, in (0, 1]. Default 0.2, as in TIES.

    Returns:
        The cleaned task vectors.

    Example:
        The sums are -2 and 3: the first entry of the first task vector disagrees.

        >>> trim_and_elect([{"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([-3.0, 1.0])}], density=1.0)
        [{'w': tensor([0., 2.])}, {'w': tensor([-3.,  1.])}]
    """
    flat = torch.stack([flatten(tau) for tau in task_vectors])  # (n, d)
    trimmed = torch.stack([keep_largest(row, count_kept(row.numel(), density)) for row in flat])
    signs = trimmed.sum(dim=0).sign()
    signs = torch.where(signs == 0, signs.sum().sign(), signs)
    return [unflatten(torch.where(row.sign() == signs, row, 0), like=task_vectors[0]) for row in trimmed]


def prediction_entropy(logits: Tensor) -> Tensor:
    r"""Return the mean entropy of predictions, in nats; logits (batch, classes).

    Example:
        >>> prediction_entropy(torch.zeros(3, 2))  # log 2
        tensor(0.6931)
    """
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1).mean()


def _combine(theta_0: Vector, task_vectors: Sequence[Vector], coefficients: Tensor) -> Vector:
    """theta_0^l + sum_k lambda_k^l tau_k^l, with coefficients (tasks, layers) or (tasks, 1)."""
    per_layer = coefficients.expand(len(task_vectors), len(theta_0))
    return {
        key: theta_0[key] + sum(c.to(theta_0[key]) * tau[key] for c, tau in zip(per_layer[:, layer], task_vectors))
        for layer, key in enumerate(theta_0)
    }


def _minimise(
    objective: Callable[[Tensor], Tensor],
    start: Tensor,
    num_steps: int,
    lr: float,
    clamp: bool,
    progress: Callable[[int, float], None] | None,
) -> Tensor:
    coefficients = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([coefficients], lr=lr)
    for step in range(num_steps):
        loss = objective(coefficients)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if clamp:
            with torch.no_grad():
                coefficients.clamp_(0, 1)
        if progress is not None:
            progress(step, loss.item())
    return coefficients.detach()
