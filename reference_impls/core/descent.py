r"""Gradient descent in the vector space of state dicts, for methods that train a little: one loop for all."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from reference_impls.core.state_dict import StateDict, Vector, tied_to


def outputs(network: nn.Module, theta: Vector, inputs: Tensor, like: StateDict) -> Tensor:
    """Return what `network` computes with `theta` and the integer buffers of `like`; differentiable in `theta`.

    Example:
        >>> network = nn.Linear(2, 1, bias=False)
        >>> outputs(network, {"weight": torch.tensor([[2.0, 3.0]])}, torch.ones(1, 2), like=network.state_dict())
        tensor([[5.]])
    """
    ties = tied_to(like)
    buffers = {key: tensor for key, tensor in like.items() if key not in theta and key not in ties}
    return functional_call(network, {**buffers, **theta}, (inputs,))


def descend(
    objective: Callable[[Vector, int], Tensor],
    start: Vector,
    *,
    num_steps: int,
    lr: float,
    progress: Callable[[int, float], None] | None = None,
) -> Vector:
    r"""Take steps of Adam down an objective and return the point reached.

    Args:
        objective: differentiable scalar of a vector and the number of the step.
        start: where to begin; not changed.
        num_steps: number of steps, >= 0.
        lr: step size of Adam.
        progress: called with the step and the value before it.

    Raises:
        ValueError: a negative number of steps.

    Example:
        Adam's first step is lr against the sign of the gradient.

        >>> descend(lambda v, step: (v["w"] ** 2).sum(), {"w": torch.tensor([3.0])}, num_steps=1, lr=0.5)
        {'w': tensor([2.5000])}
    """
    if num_steps < 0:
        raise ValueError(f"num_steps is {num_steps}; it is at least 0")
    leaves = {key: tensor.detach().clone().requires_grad_() for key, tensor in start.items()}
    optimizer = torch.optim.Adam(list(leaves.values()), lr=lr)
    for step in range(num_steps):
        value = objective(leaves, step)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        if progress is not None:
            progress(step, value.item())
    return {key: leaf.detach() for key, leaf in leaves.items()}
