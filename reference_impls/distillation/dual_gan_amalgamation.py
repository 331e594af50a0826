r"""Data-free amalgamation by a group-stack dual GAN (ye2020datafree).

Teachers that give images several labels each are amalgamated into one student without any data. First a generator
learns to make images from noise, with the fixed teachers as its discriminators: real images make them sure, active and
varied. It is a stack of groups, dual to the teachers' blocks: what a group makes has the form of features that the
teachers' last blocks read, and must tell them what the finished image does. Then the student, the dual generator, from
images to labels, is trained block by block: its features, filtered, must lead each teacher's remaining blocks to the
answers of the image.

Notation: A_m^b block b of teacher m, b = 1..B; G^j group j of the generator, F_g^j its output, F_g^B = I_g the image;
f_m^j the filter for teacher m; O(F) the probabilities y^i of all teachers' C labels given F; T^b the student's block b.

Departures: the image is not filtered, so that it is one image for all teachers. The information entropy of several
labels is the mean binary entropy of each label's mean probability (not confirmed). The losses of the second stage and
the student's branches for chosen labels are not confirmed: here each block learns from the teachers' answers alone, the
blocks before it learn on, and the last block's outputs are the chosen labels.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def dual_gan_amalgamation(
    networks: Sequence[nn.Sequential],
    student: nn.Sequential,
    input_shape: Sequence[int],
    *,
    labels: Sequence[int] | None = None,
    groups: Sequence[nn.Module] | None = None,
    noise_size: int = 32,
    activation_weight: float = 0.1,
    entropy_weight: float = 5.0,
    sparsity_weight: float = 0.1,
    threshold: float = 0.5,
    batch_size: int = 64,
    generator_steps: int = 200,
    num_steps: int = 200,
    lr: float = 3e-3,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> nn.Sequential:
    r"""Train one student of several teachers' labels from the teachers alone.

    $$
    \mathcal{L}_{joint} = \mathcal{L}_{gan} + \frac{1}{B - 1} \sum_{j < B} \ell\big(O(F_g^j), O(I_g)\big), \qquad
    \mathcal{L}_{gan} = \mathcal{L}_{oh} + \alpha \mathcal{L}_a + \beta \mathcal{L}_{ie} + \gamma \mathcal{L}_{dis}
    $$

    $$
    \mathcal{L}_{oh} = \frac1C \sum_i \ell\big(y^i, [y^i \geq \epsilon]\big), \quad
    \mathcal{L}_a = - \frac1M \sum_m \overline{|F_m|}, \quad
    \mathcal{L}_{ie} = - \frac1C \sum_i H\big(\overline{y^i}\big), \quad
    \mathcal{L}_{dis} = \frac1C \sum_i |y^i|
    $$

    Then for b = 1, ..., B: $\min \ell\big(O(T^b \cdots T^1(I_g)), O(I_g)\big)$. Bars are means over a batch, $\ell$ and
    H the binary cross-entropy and entropy, F_m the features before the last block.

    Args:
        networks: the teachers, each a `Sequential` of B >= 2 blocks, the last of which gives the scores of its labels
            (sigmoid); features after a block have one shape in all teachers, (units,) or (channels, height, width).
        student: a `Sequential` of B blocks with features of these shapes and one score for each of `labels`.
        input_shape: of one image.
        labels: numbers of the student's labels among those of all teachers, in their order. Default None: all.
        groups: the generator's, the first from noise (n, noise_size). Default None: each linear with batch
            normalisation and ReLU, for the image tanh.
        noise_size: of the generator's input. Default 32: for toys.
        activation_weight: $\alpha$. Default 0.1: DAFL's, not confirmed here.
        entropy_weight: $\beta$. Default 5: DAFL's, not confirmed here.
        sparsity_weight: $\gamma$. Default 0.1: not confirmed.
        threshold: $\epsilon$ in (0, 1). Default 0.5: the paper's experiments.
        batch_size: images a step. Default 64: for toys.
        generator_steps: optimiser steps (Adam) of the generator. Default 200: for toys.
        num_steps: optimiser steps (Adam) of each of the student's blocks. Default 200: for toys.
        lr: step size. Default 3e-3: for toys.
        generator: of noise and initial parameters. Default None: a generator with seed 0.
        progress: called with the step, counted over all trainings, and the loss.

    Returns:
        A trained copy of `student`, in evaluation mode.

    Raises:
        ValueError: no teachers, other numbers of blocks, features of other shapes, another number of scores.

    Example:
        Two images, two labels, each of odds 3 to 1 once. Every answer costs log(4/3); the mean 1/2 has all entropy.

        >>> scores = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]) * math.log(3)
        >>> [round(part.item(), 4) for part in label_losses(scores, 0.5)]
        [0.2877, -0.6931, 0.5]

    References:
        ye2020datafree, the sections on the amalgamating GAN (group stack, multiple targets) and on the dual generator.
    """
    teachers = [copy.deepcopy(network).eval().requires_grad_(False) for network in networks]
    if not teachers or any(len(t) != len(student) for t in teachers) or len(student) < 2:
        raise ValueError(f"received {[*map(len, teachers)]} and {len(student)} blocks; one number, 2 or more, is needed")
    student, device = copy.deepcopy(student).eval(), next(teachers[0].parameters()).device
    with torch.no_grad():
        stages = [_stages(t, torch.zeros(1, *input_shape, device=device)) for t in (*teachers, student)]
    shapes = [[tuple(f.shape[1:]) for f in own[:-1]] for own in stages]
    if any(s != shapes[0] for s in shapes):
        raise ValueError(f"the features have shapes {shapes}; one shape after each block is needed")
    total, own = sum(s[-1].shape[1] for s in stages[:-1]), stages[-1][-1].shape[1]
    labels = list(range(total) if labels is None else labels)
    if own != len(labels) or not set(labels) <= set(range(total)):
        raise ValueError(f"the student has {own} scores for the labels {labels} of {total}")

    forms = [(noise_size,), *shapes[0][::-1], tuple(input_shape)]  # Stage 1: group j makes what block B - j + 1 reads
    generator = generator or torch.Generator().manual_seed(0)
    if groups is None:
        groups = [_group(form, to, to is forms[-1], generator) for form, to in pairwise(forms)]
    stack = copy.deepcopy(nn.ModuleList(groups)).to(device).train()
    new_filter = lambda form: nn.ModuleList(Filter(form[0], generator) for _ in teachers).to(device)  # noqa: E731
    filters = nn.ModuleList(map(new_filter, forms[1:-1]))  # [group][teacher]
    optimizer = torch.optim.Adam([*stack.parameters(), *filters.parameters()], lr=lr)
    draw = lambda: torch.randn(batch_size, noise_size, generator=generator).to(device)  # noqa: E731
    for step in range(generator_steps):
        made = _stages(stack, draw())
        seen = [_stages(t, made[-1])[-2:] for t in teachers]
        answer = torch.cat([scores for _, scores in seen], dim=1)
        losses = (*label_losses(answer, threshold), -sum(f.abs().mean() for f, _ in seen) / len(seen))
        loss = sum(w * l for w, l in zip((1.0, entropy_weight, sparsity_weight, activation_weight), losses))
        for j, f in enumerate(made[:-1]):
            early = _answers(teachers, len(student) - 1 - j, f, filters[j])
            loss = loss + F.binary_cross_entropy_with_logits(early, answer.detach().sigmoid()) / (len(made) - 1)
        _step(progress, optimizer, step, loss)

    # Stage 2: the dual generator, block by block.
    filters = nn.ModuleList(map(new_filter, shapes[0]))
    for b in range(len(student)):
        learning = nn.ModuleList([*student[: b + 1], *filters[b : b + 1]]).train()
        optimizer = torch.optim.Adam(learning.parameters(), lr=lr)
        for step in range(num_steps):
            with torch.no_grad():
                image = _stages(stack, draw())[-1]
                target = torch.cat([t(image) for t in teachers], dim=1).sigmoid()
            answer, last = student[: b + 1](image), b == len(student) - 1
            answer = answer if last else _answers(teachers, b + 1, answer, filters[b])
            loss = F.binary_cross_entropy_with_logits(answer, target[:, labels] if last else target)
            _step(progress, optimizer, generator_steps + b * num_steps + step, loss)
    return student.eval()


def label_losses(scores: Tensor, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """How unsure the labels are, minus the entropy of their mean probabilities, and how many there are."""
    y = scores.sigmoid()
    mean = y.mean(dim=0).clamp(1e-6, 1 - 1e-6)
    entropy = -(mean * mean.log() + (1 - mean) * (1 - mean).log()).mean()
    return F.binary_cross_entropy_with_logits(scores, (y >= threshold).to(y.dtype)), -entropy, y.abs().mean()


class Filter(nn.Module):
    """Factors on channels (units, for flat features) from their means over the image and two linear layers."""

    def __init__(self, channels: int, generator: torch.Generator) -> None:
        super().__init__()
        self.first, self.second = _linear(channels, channels, generator), _linear(channels, channels, generator)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.flatten(2).mean(dim=2) if x.dim() > 2 else x
        gate = 2 * self.second(torch.relu(self.first(pooled))).sigmoid()
        return x * gate.reshape(*gate.shape, *[1] * (x.dim() - 2))


def _answers(teachers: Sequence[nn.Sequential], start: int, features: Tensor, filters: nn.ModuleList) -> Tensor:
    """The scores that the teachers' blocks from number `start` give to filtered features."""
    return torch.cat([teacher[start:](f(features)) for teacher, f in zip(teachers, filters)], dim=1)


def _group(form: tuple[int, ...], to: tuple[int, ...], last: bool, generator: torch.Generator) -> nn.Sequential:
    layers = [nn.Flatten(), _linear(math.prod(form), math.prod(to), generator), nn.BatchNorm1d(math.prod(to))]
    return nn.Sequential(*layers, nn.Tanh() if last else nn.ReLU(), nn.Unflatten(1, to))


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
    nn.init.normal_(layer.weight, std=inputs**-0.5, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def _stages(network: Sequence[nn.Module], x: Tensor) -> list[Tensor]:
    return list(accumulate(network, lambda features, stage: stage(features), initial=x))[1:]


def _step(progress: Callable | None, optimizer: torch.optim.Optimizer, step: int, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if progress is not None:
        progress(step, loss.item())
