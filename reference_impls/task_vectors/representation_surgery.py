r"""Representation Surgery (yang2024surgery).

What a merged model makes of an input differs from what the fine-tuned model of its task made of it: the
representation is biased, whichever way the models were merged. Surgery corrects it after the merge. For each task a
small module of low rank reads the merged model's representation and takes away what it recognises as bias; it is
trained on inputs without labels to come near the individual model's representation.

Notation: Z^mtl and Z^ind the representations of N inputs by the merged and by the individual model, rows of d
features; W_down and W_up the module of rank r.

Departures: none known. The weights start as PyTorch draws those of a linear layer; how the paper starts them is not
confirmed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Surgery:
    """The module of one task.

    Attributes:
        down: $W_{down}$, (r, d).
        up: $W_{up}$, (d, r).

    Example:
        >>> module = Surgery(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5], [2.0]]))
        >>> module(torch.tensor([[3.0, 4.0], [-3.0, 4.0]]))
        tensor([[ 1.5000, -2.0000],
                [-3.0000,  4.0000]])
    """

    down: Tensor
    up: Tensor

    def __call__(self, representation: Tensor) -> Tensor:
        """Return the representation (..., d) without its bias."""
        return representation - torch.relu(representation @ self.down.T) @ self.up.T


def representation_surgery(
    activations_a: Mapping[str, Tensor],
    activations_b: Mapping[str, Tensor],
    *,
    rank: int = 16,
    num_steps: int = 1000,
    lr: float = 1e-3,
    batch_size: int = 64,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> dict[str, Surgery]:
    r"""Train for each task a module that brings the merged model's representation near the individual model's.

    $$
    \hat Z^{mtl} = Z^{mtl} - \mathrm{ReLU}\big(Z^{mtl}\, W_{down}^\top\big)\, W_{up}^\top, \qquad
    \min_{W_{down},\, W_{up}}\ \frac1N \sum_{i=1}^N \big\lVert \hat Z_i^{mtl} - Z_i^{ind} \big\rVert_1
    $$

    Args:
        activations_a: $Z^{mtl}$ by task, representations (N, d) of its inputs by the merged model.
        activations_b: $Z^{ind}$ by task, representations (N, d) of the same inputs by the task's own fine-tuned model.
        rank: $r$, >= 1, width of the modules. Default 16: the authors' setting.
        num_steps: optimiser steps per task, >= 0. Default 1000: the number of FusionBench; the paper does without labels, so
            that more steps cost only time.
        lr: step size of Adam. Default 1e-3: the authors' setting.
        batch_size: inputs a step. Default 64: ours.
        generator: source of the start and of the batches. Default None: a new one with seed 0.
        progress: called with the step, counted over all tasks, and its loss. Default None.

    Returns:
        One `Surgery` per task: call it with a representation of the merged model.

    Raises:
        ValueError: no tasks, other tasks or shapes in the two mappings, a rank below 1.

    Example:
        The merged model has the first feature twice as large as it should be; the module learns to take half of it away.

        >>> z = torch.rand(200, 4, generator=torch.Generator().manual_seed(0))
        >>> biased = z * torch.tensor([2.0, 1.0, 1.0, 1.0])
        >>> module = representation_surgery({"task": biased}, {"task": z}, rank=2)["task"]
        >>> bool((module(biased) - z).abs().mean() < 0.25 * (biased - z).abs().mean())
        True

    References:
        yang2024surgery (representation surgery).
    """
    if not activations_a or set(activations_a) != set(activations_b):
        raise ValueError(f"received tasks {list(activations_a)} and {list(activations_b)}; both need the same, at least one")
    if rank < 1:
        raise ValueError(f"rank is {rank}; it is at least 1")
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    modules: dict[str, Surgery] = {}
    for number, (task, merged) in enumerate(activations_a.items()):
        individual = activations_b[task]
        if merged.ndim != 2 or merged.shape != individual.shape:
            shapes = f"{tuple(merged.shape)} and {tuple(individual.shape)}"
            raise ValueError(f"{task!r} has shapes {shapes}; both need one shape (N, d)")
        report = None if progress is None else (lambda step, loss, start=number * num_steps: progress(start + step, loss))
        modules[task] = _train(merged.detach(), individual.detach(), rank, num_steps, lr, batch_size, generator, report)
    return modules


def _train(
    merged: Tensor, individual: Tensor, rank: int, num_steps: int, lr: float, batch_size: int,
    generator: torch.Generator, progress: Callable[[int, float], None] | None,
) -> Surgery:  # fmt: skip
    size, features = merged.shape
    draw = lambda *shape: (torch.rand(shape, generator=generator) * 2 - 1) / shape[-1] ** 0.5  # noqa: E731
    down = draw(rank, features).to(merged).requires_grad_()
    up = draw(features, rank).to(merged).requires_grad_()
    optimizer = torch.optim.Adam([down, up], lr=lr)
    for step in range(num_steps):
        index = torch.randint(size, (batch_size,), generator=generator).to(merged.device)
        loss = (Surgery(down, up)(merged[index]) - individual[index]).abs().sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if progress is not None:
            progress(step, loss.item())
    return Surgery(down.detach(), up.detach())
