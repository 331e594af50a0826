r"""OFA-KD, one-for-all knowledge distillation (hao2023one).

A transformer, a convolutional network and a perceptron compute unlike features, so that the hints of feature
distillation mislead a student of another architecture. What they share is the space of scores. After each of its
stages the student gets an exit branch that turns the features there into scores, and every branch, like the student
itself, learns the final answer of the teacher. As the branches see less than the teacher does, the right class counts
for more: the more so, the surer the teacher is of it.

Notation: p^t the teacher's probabilities, p^s the student's or a branch's, c-hat the right class, gamma the exponent
of the modulating term; the student has L stages before its head.

Departures: a branch is one depthwise-separable convolution for each stage that follows (a 1x1 convolution after the
last), the mean over places and a linear layer, without batch normalisation; for token sequences, whose branches are
transformer blocks in the paper, and for vectors it has a hidden layer on each token instead. Other branches can be
given.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def ofa_kd(
    network: nn.Module,
    student: nn.Sequential,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    gamma: float = 1.5,
    form: Literal["paper", "code"] = "paper",
    stages: Sequence[int] | None = None,
    branches: Sequence[nn.Module] | None = None,
    branch_weight: float = 1.0,
    temperature: float = 1.0,
    num_steps: int = 200,
    lr: float = 3e-3,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> nn.Module:
    r"""Train a student towards the final answers of a teacher of another architecture, after each of its stages.

    $$
    \mathcal{L}_{\mathrm{OFA}}(p^s) = -\,(1 + p^t_{\hat c})^{\gamma} \log p^s_{\hat c} - \sum_{c \neq \hat c} p^t_c \log p^s_c,
    \qquad \mathcal{L} = \mathcal{L}_{\mathrm{OFA}}(p^s) + \sum_{l} \mathcal{L}_{\mathrm{OFA}}(p^{s, l})
    $$

    With gamma 1 this is the cross-entropy with the label plus that with the teacher.

    Args:
        network: the teacher; inputs to scores (n, classes).
        student: a `Sequential` of stages, the last of which is its head; the features between are (n, channels,
            height, width), (n, tokens, width) or (n, units).
        batches: pairs of inputs and labels.
        gamma: $\gamma \geq 1$, exponent of the target's term. Default 1.5: the authors' command for ImageNet; 1 is no
            enhancement.
        form: "paper" has the loss above; "code" that of the authors' code, which raises the other probabilities to
            gamma too, and leaves the label's own 1 out of the weights and adds the cross-entropy with the label once,
            for the student. Default "paper": the equations.
        stages: numbers of the stages with a branch, from 0. Default None: all before the head, as in the authors'
            code.
        branches: one module per branch that maps the stage's features to scores. Default None: those named above.
        branch_weight: of the branches' OFA losses. Default 1: the authors' code.
        temperature: divides all scores in the OFA loss, > 0. Default 1: the authors' code.
        num_steps: optimiser steps (Adam). Default 200: for toys.
        lr: step size. Default 3e-3: for toys.
        generator: draws the initial branches. Default None: a generator with seed 0.
        progress: called with step and loss.

    Returns:
        A trained copy of `student`, in evaluation mode; the branches are dropped.

    Raises:
        ValueError: no batches, gamma below 1, an unknown option or stage, another number of branches than of stages.

    Example:
        The teacher is 0.8 sure of the right class of two. With gamma 2 its term weighs 1.8^2 = 3.24, the other one 0.2.

        >>> ofa_weights(torch.tensor([[0.8, 0.2]]), torch.tensor([0]), gamma=2.0)
        tensor([[3.2400, 0.2000]])

    References:
        hao2023one, branches into the space of scores and adaptive target information enhancement.
    """
    data = list(batches)
    stages = range(len(student) - 1) if stages is None else stages
    _check(student, data, gamma, form, stages, branches)
    teacher, student = copy.deepcopy(network).eval(), copy.deepcopy(student).eval()
    with torch.no_grad():
        targets = [ofa_weights((teacher(x) / temperature).softmax(dim=1), y, gamma, form) for x, y in data]
        features = _stages(student, data[0][0])
    if branches is None:
        generator = generator or torch.Generator().manual_seed(0)
        remaining = [len(student) - 2 - l for l in stages]
        branches = [_branch(features[l], targets[0].shape[1], r, generator) for l, r in zip(stages, remaining)]
    exits = copy.deepcopy(nn.ModuleList(branches)).to(data[0][0].device)

    student.train()
    optimizer = torch.optim.Adam([*student.parameters(), *exits.parameters()], lr=lr)
    for step in range(num_steps):
        (x, y), w = data[step % len(data)], targets[step % len(data)]
        features = _stages(student, x)
        ofa = lambda scores: -(w * (scores / temperature).log_softmax(dim=1)).sum(dim=1).mean()  # noqa: E731
        loss = ofa(features[-1]) + branch_weight * sum(ofa(branch(features[l])) for branch, l in zip(exits, stages))
        if form == "code":
            loss = loss + F.cross_entropy(features[-1], y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if progress is not None:
            progress(step, loss.item())
    return student.eval()


def ofa_weights(probabilities: Tensor, labels: Tensor, gamma: float, form: str = "paper") -> Tensor:
    """What each class's log-probability is multiplied by, (n, classes), from the teacher's probabilities."""
    target = F.one_hot(labels, probabilities.shape[1]).to(probabilities.dtype)
    if form == "code":
        return (probabilities + target) ** gamma - target
    return torch.where(target > 0, (1 + probabilities) ** gamma, probabilities)


def _branch(feature: Tensor, classes: int, remaining: int, generator: torch.Generator) -> nn.Module:
    """An exit after a stage that `remaining` stages follow."""
    skip, width = nn.utils.skip_init, feature.shape[1 if feature.dim() == 4 else -1]
    layers: list[nn.Module] = []
    if feature.dim() == 4:
        for _ in range(remaining):  # depthwise, then pointwise
            depthwise = skip(nn.Conv2d, width, width, 3, stride=2, padding=1, groups=width)
            layers += [depthwise, skip(nn.Conv2d, width, 2 * width, 1), nn.ReLU()]
            width *= 2
        layers += [] if remaining else [skip(nn.Conv2d, width, width, 1), nn.ReLU()]
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    else:
        layers += [skip(nn.Linear, width, width), nn.ReLU()] + [_MeanToken()] * (feature.dim() == 3)
    layers.append(skip(nn.Linear, width, classes))
    for layer in (module for module in layers if isinstance(module, nn.Conv2d | nn.Linear)):
        bound = layer.weight[0].numel() ** -0.5
        nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)


class _MeanToken(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=1)


def _stages(network: nn.Sequential, x: Tensor) -> list[Tensor]:
    """The output of every stage."""
    outputs = []
    for stage in network:
        x = stage(x)
        outputs.append(x)
    return outputs


def _check(
    student: nn.Sequential, data: list, gamma: float, form: str, stages: Sequence[int], branches: Sequence | None
) -> None:
    if not data:
        raise ValueError("received no batches; at least one is needed")
    if gamma < 1 or form not in ("paper", "code"):
        raise ValueError(f"gamma is {gamma}, at least 1, and form {form!r}, one of paper, code")
    if any(not 0 <= l < len(student) - 1 for l in stages):
        raise ValueError(f"stages are {list(stages)}; the student has stages 0 to {len(student) - 2} before its head")
    if branches is not None and len(branches) != len(stages):
        raise ValueError(f"received {len(branches)} branches for {len(stages)} stages; one for each is needed")
