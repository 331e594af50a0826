r"""Piggyback (mallya2018piggyback).

One fixed network serves many tasks when each task switches off those of its weights that disturb it. Piggyback
learns, for every weight, a real-valued score; the weight is kept where its score exceeds a threshold and is zero
elsewhere. The step is skipped when gradients are taken, so that the scores, also of weights that are off, learn from
the gradient of the masked weight. Stored are one bit per weight and task and, in general, a new output layer.

Notation: W a weight of the base model, m^r its scores, tau the threshold, m the mask.

Departures: none. Biases and normalisation layers are not masked, as in the paper; here the output layer is part of
the base unless it is named in `trainable`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from reference_impls.core.state_dict import StateDict, to_state_dict, to_vector


@dataclass(frozen=True)
class PiggybackMasks:
    """What a task adds to the base model.

    Attributes:
        base: the base model.
        masks: True where a weight is kept, by name.
        trained: tensors that the task trained anew, by name.
    """

    base: StateDict
    masks: Mapping[str, Tensor]
    trained: Mapping[str, Tensor]

    def model(self) -> StateDict:
        """Return the base with its masked weights and the task's own tensors."""
        theta = to_vector(self.base)
        masked = {name: torch.where(mask, theta[name], 0) for name, mask in self.masks.items()}
        return to_state_dict({**theta, **masked, **self.trained}, like=self.base)


def piggyback(
    network: nn.Module,
    base: StateDict,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    threshold: float = 5e-3,
    initial: float = 1e-2,
    trainable: Sequence[str] = (),
    num_steps: int = 500,
    lr: float = 1e-4,
    lr_trainable: float = 1e-3,
    progress: Callable[[int, float], None] | None = None,
) -> PiggybackMasks:
    r"""Learn which weights of a fixed network a task keeps.

    $$
    m = [\, m^r \ge \tau \,], \qquad \hat W = m \odot W, \qquad
    \frac{\partial L}{\partial m^r} := \frac{\partial L}{\partial m} = \frac{\partial L}{\partial \hat W} \odot W
    $$

    Args:
        network: maps inputs to logits (batch, classes), in evaluation mode; its own parameters are neither used nor changed.
        base: $W$, the model that stays as it is.
        batches: the task's (inputs, targets), gone through again and again.
        threshold: $\tau$. Default 5e-3: the paper.
        initial: of all scores, above the threshold, so that training starts from the whole base. Default 1e-2: the paper.
        trainable: names that are trained freely beside the masks (the task's output layer). Default none: masks alone.
        num_steps: optimiser steps, >= 0. Default 500: a toy's length.
        lr: step size of Adam for the scores. Default 1e-4: the paper. A step moves a score by about this much, so that a
            weight can be switched off after (initial - threshold) / lr = 50 steps.
        lr_trainable: step size of Adam for `trainable`. Default 1e-3: a toy's.
        progress: called with the step and its loss. Default None.

    Returns:
        `PiggybackMasks`: `model()` is the task's model, `masks` its bits.

    Raises:
        ValueError: no batches, an unknown name in `trainable`, an initial score below the threshold.

    Example:
        Class 1 is right, and the weight -2 speaks against it: it is switched off.

        >>> network, base = nn.Linear(2, 2, bias=False), {"weight": torch.tensor([[0.0, 0.0], [1.0, -2.0]])}
        >>> task = piggyback(network, base, [(torch.ones(1, 2), torch.tensor([1]))], num_steps=60)
        >>> task.model()["weight"]
        tensor([[0., 0.],
                [1., 0.]])

    References:
        mallya2018piggyback, the section on learning masks.
    """
    batches = list(batches)
    if not batches:
        raise ValueError("received no batches; at least one is needed")
    if initial < threshold:
        raise ValueError(f"initial is {initial}, below the threshold {threshold}; training starts with every weight kept")
    theta = to_vector(base)
    unknown = [name for name in trainable if name not in theta]
    if unknown:
        raise ValueError(f"trainable names {unknown[:3]}, which the base does not have")

    maskable = [name for name, tensor in theta.items() if tensor.ndim > 1 and name not in trainable]
    scores = {name: torch.full_like(theta[name], initial).requires_grad_() for name in maskable}
    own = {name: theta[name].clone().requires_grad_() for name in trainable}
    groups = [{"params": list(scores.values()), "lr": lr}, {"params": list(own.values()), "lr": lr_trainable}]
    optimizer = torch.optim.Adam(groups)
    rest = {name: tensor for name, tensor in base.items() if not tensor.is_floating_point()}
    training = network.training
    network.eval()
    for step in range(num_steps):
        inputs, targets = batches[step % len(batches)]
        masked = {name: _threshold(score, threshold) * theta[name] for name, score in scores.items()}
        outputs = functional_call(network, {**rest, **theta, **masked, **own}, (inputs,))
        loss = nn.functional.cross_entropy(outputs, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if progress is not None:
            progress(step, loss.item())
    network.train(training)
    masks = {name: score.detach() >= threshold for name, score in scores.items()}
    return PiggybackMasks(base, masks, {name: tensor.detach() for name, tensor in own.items()})


def _threshold(score: Tensor, threshold: float) -> Tensor:
    """The mask, with the gradient of the identity: the value of the step, and the score's derivative."""
    mask = (score >= threshold).to(score.dtype)
    return mask + (score - score.detach())
