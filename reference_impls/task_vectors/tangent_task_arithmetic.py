r"""Tangent-space task arithmetic (ortizjimenez2023tangent).

Task vectors add up well where they do not interfere: where each acts on its own inputs only, the weights are said to
be disentangled. A network is more so in its tangent space. Replace it by its first-order expansion in the weights
around the base, fine-tune this linear model on every task, and add the task vectors there: the outputs then are
exactly sums of the tasks' contributions.

Notation: f(x; theta) the network, theta_0 the base model, tau_t the task vector of task t, f_lin the linearised
network, lambda the scaling coefficient, xi the disentanglement error.

Departures: none. The network runs in evaluation mode and its buffers stay those of the base.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp

from reference_impls.core.state_dict import StateDict, Vector, linear_combination, to_vector


@dataclass(frozen=True)
class LinearizedModel:
    r"""A network, expanded to first order around the base, at $\theta_0 + \tau$.

    Attributes:
        network: f.
        base: theta_0.
        tau: a movement of the parameters away from the base.
    """

    network: nn.Module
    base: StateDict
    tau: Vector

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return the outputs of the linearised network."""
        return linearized_outputs(self.network, self.base, self.tau, inputs)


def tangent_task_arithmetic(
    network: nn.Module,
    base: StateDict,
    task_batches: Sequence[Iterable[tuple[Tensor, Tensor]]],
    *,
    scaling_coef: float = 1.0,
    num_steps: int = 200,
    lr: float = 1e-3,
    progress: Callable[[int, float], None] | None = None,
) -> LinearizedModel:
    r"""Fine-tune the linearised network on every task, and add up the task vectors.

    $$
    f_{lin}(x; \theta) = f(x; \theta_0) + (\theta - \theta_0)^\top \nabla_\theta f(x; \theta_0), \qquad
    \tau_t = \arg\min_\tau \sum_{(x, y) \in D_t} \ell\big(f_{lin}(x; \theta_0 + \tau), y\big), \qquad
    f_{lin}\Big(x; \theta_0 + \lambda \sum_t \tau_t\Big)
    $$

    Args:
        network: $f$, maps inputs to logits (batch, classes); its own parameters are neither used nor changed.
        base: $\theta_0$.
        task_batches: $D_t$, for every task its batches of (inputs, targets), gone through again and again.
        scaling_coef: $\lambda$; negative forgets. Default 1.0: the sum itself; the paper picks it on held-out data.
        num_steps: optimiser steps per task, >= 0. Default 200: a toy's length.
        lr: step size of Adam. Default 1e-3: a toy's.
        progress: called with the step, counted over all tasks, and its loss. Default None.

    Returns:
        A `LinearizedModel`: call it with inputs. The task vectors have no meaning in the network itself.

    Raises:
        ValueError: no tasks, or a task without batches.

    Example:
        Without steps nothing moves, and the linearised network is the network.

        >>> network = nn.Linear(1, 2, bias=False)
        >>> base = {"weight": torch.tensor([[1.0], [2.0]])}
        >>> x = torch.tensor([[3.0]])
        >>> tangent_task_arithmetic(network, base, [[(x, torch.tensor([0]))]], num_steps=0)(x)
        tensor([[3., 6.]])

    References:
        ortizjimenez2023tangent, linearised fine-tuning.
    """
    if not task_batches:
        raise ValueError("received no tasks; at least one is needed")
    task_vectors = []
    for number, batches in enumerate(task_batches):
        report = None if progress is None else (lambda step, loss, start=number * num_steps: progress(start + step, loss))
        task_vectors.append(tangent_fine_tuning(network, base, batches, num_steps=num_steps, lr=lr, progress=report))
    return LinearizedModel(network, base, linear_combination(task_vectors, [scaling_coef] * len(task_vectors)))


def tangent_fine_tuning(
    network: nn.Module,
    base: StateDict,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    num_steps: int = 200,
    lr: float = 1e-3,
    progress: Callable[[int, float], None] | None = None,
) -> Vector:
    r"""Return $\tau_t$ by parameter name: one task on batches $D_t$, with the options of `tangent_task_arithmetic`."""
    batches = list(batches)
    if not batches:
        raise ValueError("received a task without batches; at least one batch is needed")
    parameters = {name for name, _ in network.named_parameters()}
    tau = {name: torch.zeros_like(t).requires_grad_() for name, t in to_vector(base).items() if name in parameters}
    optimizer = torch.optim.Adam(tau.values(), lr=lr)
    for step in range(num_steps):
        inputs, targets = batches[step % len(batches)]
        loss = nn.functional.cross_entropy(linearized_outputs(network, base, tau, inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if progress is not None:
            progress(step, loss.item())
    return {name: t.detach() for name, t in tau.items()}


def linearized_outputs(network: nn.Module, base: StateDict, tau: Vector, inputs: Tensor) -> Tensor:
    r"""Return $f(x; \theta_0) + \tau^\top \nabla_\theta f(x; \theta_0)$ by one Jacobian-vector product.

    Args:
        network: $f$.
        base: $\theta_0$.
        tau: $\tau$ by parameter name.
        inputs: $x$.

    Returns:
        Outputs (batch, classes), differentiable in `tau`.

    Example:
        The derivative of w^2 x at w = 3 is 6 x: 9 * 2 + 0.5 * 6 * 2 = 24.

        >>> class Square(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.w = nn.Parameter(torch.zeros(1))
        ...     def forward(self, x):
        ...         return self.w**2 * x
        >>> linearized_outputs(Square(), {"w": torch.tensor([3.0])}, {"w": torch.tensor([0.5])}, torch.tensor([2.0]))
        tensor([24.])
    """
    theta_0 = {name: base[name].detach().to(tau[name].dtype) for name in tau}
    rest = {name: t for name, t in base.items() if name not in tau}
    training = network.training
    network.eval()
    try:
        f = lambda theta: functional_call(network, {**rest, **theta}, (inputs,), tie_weights=False)  # noqa: E731
        value, change = jvp(f, (theta_0,), (tau,))
    finally:
        network.train(training)
    return value + change


def disentanglement_error(
    outputs: Callable[[Vector, Tensor], Tensor], task_vectors: Sequence[Vector], coefs: Sequence[float], inputs: Sequence[Tensor]
) -> float:
    r"""How often task vectors change each other's predictions: 0 where the weights are disentangled.

    $$ \xi(\alpha) = \sum_t \Pr_{x \sim \mu_t}\Big[ \arg\max f(x; \theta_0 + \alpha_t \tau_t) \ne
       \arg\max f\big(x; \theta_0 + \textstyle\sum_s \alpha_s \tau_s\big) \Big] $$

    Args:
        outputs: takes a movement and inputs to logits: of the network, or of its linearisation.
        task_vectors: $\tau_t$.
        coefs: $\alpha_t$.
        inputs: inputs of every task.

    Returns:
        A number between 0 and the number of tasks.

    Example:
        >>> a, b = {"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([0.0, 3.0])}
        >>> disentanglement_error(lambda tau, x: x * tau["w"], [a, b], [1.0, 1.0], [torch.ones(4, 2), torch.ones(4, 2)])
        1.0

    References:
        ortizjimenez2023tangent, the disentanglement error.
    """
    total = linear_combination(task_vectors, coefs)
    error = 0.0
    for tau, coef, x in zip(task_vectors, coefs, inputs, strict=True):
        alone, together = outputs({name: coef * t for name, t in tau.items()}, x), outputs(total, x)
        error += (alone.argmax(-1) != together.argmax(-1)).double().mean().item()
    return error
