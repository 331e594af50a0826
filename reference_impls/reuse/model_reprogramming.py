r"""Model reprogramming (chen2024reprogramming).

A frozen model serves a new task of another domain through what is put before and after it. A target input is placed in the middle
of the source model's input, and a trainable pattern, the same for all inputs, fills the frame around it (or a trainable linear
map makes a source input of it); the source labels that come out are mapped to target labels, many to one. Only the input program,
and a dense output layer where one is asked for, are trained; the source model is called as it is.

Notation: x a target input, f_S the source model with source labels s, h its probabilities; delta the trainable pattern, M the
mask that is one on the frame; B_c the source labels that stand for the target label c.

Departures: none. The paper is a survey of one scheme with several published choices for its layers; they are options here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def model_reprogramming(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    frame: Sequence[int] | None = None,
    program: Literal["additive", "affine"] = "additive",
    output: Literal["random", "frequency", "dense"] = "random",
    labels_per_class: int | None = None,
    num_steps: int = 200,
    lr: float = 0.05,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> nn.Module:
    r"""Train an input program, and an output mapping if it is dense, around a frozen network.

    $$
    \min_{\delta}\ \mathbb{E}_{(x, y)} \Big[-\log p_y(x)\Big], \qquad
    p_c(x) \propto \frac{1}{|B_c|} \sum_{s \in B_c} h\big(\mathrm{pad}(x) + M \odot \delta\big)_s
    $$

    Args:
        network: $f_S$, maps inputs of shape (n, *frame) to logits over source labels.
        batches: the target task, pairs (inputs (n, *shape), targets (n,)); targets count from 0.
        frame: the source model's input shape, each side at least the target's. Default None: as the target's, and the
            pattern then covers the whole input.
        program: "additive" (padding and a universal pattern) or "affine" (the source input is A x + b).
            Default "additive": the simpler of the two.
        output: "random" disjoint groups of source labels for each target label, "frequency" groups of the labels that the
            source model gives most often to that target's inputs, or a trainable "dense" layer on the source logits. Default
            "random": it needs no look at the data.
        labels_per_class: size of the groups. Default None: as many as there are for all.
        num_steps: optimiser steps (Adam). Default 200: for toys.
        lr: step size. Default 0.05: for toys.
        generator: draws groups and initial layers. Default None: a generator with seed 0.
        progress: called with step and loss.

    Returns:
        A network from target inputs to the logarithms of target probabilities, with a frozen copy of `network` inside.

    Raises:
        ValueError: no data, a frame smaller than the inputs, too few source labels, an unknown option.

    Example:
        The source knows whether the sum of three numbers is positive. Target inputs are single numbers, and the label is whether
        they exceed 2: a pattern whose sum is -2 does it.

        >>> class Sign(nn.Module):
        ...     def forward(self, x):
        ...         return torch.stack([-x.sum(1), x.sum(1)], 1)
        >>> x = torch.tensor([[0.0], [1.0], [3.0], [4.0]])
        >>> program = model_reprogramming(Sign(), [(x, torch.tensor([0, 0, 1, 1]))], frame=(3,), output="frequency")
        >>> program(x).argmax(1).tolist(), round(program.pattern.sum().item())
        ([0, 0, 1, 1], -2)

    References:
        chen2024reprogramming, the framework of model reprogramming and its algorithm.
    """
    data = list(batches)
    if not data:
        raise ValueError("received no batches; at least one is needed")
    if program not in ("additive", "affine") or output not in ("random", "frequency", "dense"):
        raise ValueError(f"program is {program!r} (additive, affine), output {output!r} (random, frequency, dense)")
    shape, frame = tuple(data[0][0].shape[1:]), tuple(frame or data[0][0].shape[1:])
    if len(frame) != len(shape) or any(big < small for big, small in zip(frame, shape)):
        raise ValueError(f"the frame {frame} cannot hold inputs of shape {shape}")
    generator = generator or torch.Generator().manual_seed(0)
    model = Reprogrammed(network, shape, frame, program, generator).to(data[0][0].device)

    num_classes = int(max(targets.max() for _, targets in data)) + 1
    source = model.source_logits(data[0][0]).shape[1]
    size = source // num_classes if labels_per_class is None else labels_per_class
    if output != "dense" and not 1 <= size * num_classes <= source:
        raise ValueError(f"{num_classes} classes of {size} source labels each need more than the {source} that there are")
    if output == "dense":
        model.dense = nn.Parameter((torch.randn(num_classes, source, generator=generator) / source**0.5).to(data[0][0].device))
    else:
        groups = _frequent(model, data, num_classes, size) if output == "frequency" else None
        chosen = torch.randperm(source, generator=generator)[: num_classes * size].reshape(num_classes, size)
        model.register_buffer("groups", (chosen if groups is None else groups).to(data[0][0].device))  # B, (classes, size)

    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=lr)
    for step in range(num_steps):
        inputs, targets = data[step % len(data)]
        loss = F.nll_loss(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if progress is not None:
            progress(step, loss.item())
    return model


class Reprogrammed(nn.Module):
    """Input program, frozen source model, output mapping."""

    def __init__(self, network: nn.Module, shape: tuple, frame: tuple, program: str, generator: torch.Generator) -> None:
        super().__init__()
        self.source = copy.deepcopy(network).requires_grad_(False).eval()
        self.frame = frame
        self.register_parameter("dense", None)
        margins = [(big - small, (big - small) // 2) for big, small in zip(frame, shape)]
        self.padding = [side for total, left in reversed(margins) for side in (left, total - left)]  # last axis first
        if program == "additive":
            inside = F.pad(torch.ones(shape), self.padding)
            self.register_buffer("mask", torch.ones(frame) if shape == frame else 1 - inside)
            self.pattern = nn.Parameter(torch.zeros(frame))
        else:
            size, inputs = torch.Size(frame).numel(), torch.Size(shape).numel()
            self.matrix = nn.Parameter(torch.randn(size, inputs, generator=generator) / inputs**0.5)
            self.offset = nn.Parameter(torch.zeros(size))

    def source_input(self, inputs: Tensor) -> Tensor:
        if hasattr(self, "pattern"):
            return F.pad(inputs, self.padding) + self.mask * self.pattern
        return F.linear(inputs.flatten(1), self.matrix, self.offset).reshape(-1, *self.frame)

    def source_logits(self, inputs: Tensor) -> Tensor:
        return self.source(self.source_input(inputs))

    def forward(self, inputs: Tensor) -> Tensor:
        logits = self.source_logits(inputs)
        if self.dense is not None:
            return F.linear(logits, self.dense).log_softmax(dim=1)
        shares = logits.softmax(dim=1)[:, self.groups].mean(dim=2).clamp_min(1e-9)  # (n, classes)
        return (shares / shares.sum(dim=1, keepdim=True)).log()


@torch.no_grad()
def _frequent(model: Reprogrammed, data: list[tuple[Tensor, Tensor]], num_classes: int, size: int) -> Tensor:
    """Groups of source labels by how often they are predicted for each class, largest counts first, no label twice."""
    answers = torch.cat([model.source_logits(x) for x, _ in data])
    targets = torch.cat([y for _, y in data])
    counts = torch.stack([
        F.one_hot(answers[targets == c].argmax(1), answers.shape[1]).float().mean(0) for c in range(num_classes)
    ])  # fmt: skip
    groups: list[list[int]] = [[] for _ in range(num_classes)]
    for place in counts.flatten().nan_to_num().sort(descending=True, stable=True).indices.tolist():
        c, s = divmod(place, counts.shape[1])
        if len(groups[c]) < size and all(s not in group for group in groups):
            groups[c].append(s)
    return torch.tensor(groups)
