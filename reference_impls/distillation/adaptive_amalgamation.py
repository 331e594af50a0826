r"""Adaptive amalgamation in two stages (shen2019customizing).

Many networks can do parts of what a user wants, each of them several tasks, and some of them the same one. A student
is built in two stages, without labels. First the source networks that share a sub-task are amalgamated into a
component network for it: each unlabelled input is taught by the source that is least in doubt about it, by its
features and its answer. Then the components are amalgamated into the student, which imitates the features of all
components and has the answers of all as its own. Features of different width are compared through small adapters that
are learned with them.

Notation: S_t source t of a sub-task, C_k the component for sub-task k, T the student; F^l features after stage l; A^l
an adapter (1x1 convolution, or a linear map of flat features) with rows w_i; z_t the scores of source t for the
sub-task, H the entropy.

Departures: all features but the scores are compared, the authors' code compares chosen blocks. Biases of the adapters
and a learned scale in the authors' code are left out. The balance of the terms is not confirmed; here all have weight
1.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def adaptive_amalgamation(
    networks: Sequence[nn.Sequential],
    components: Sequence[nn.Sequential],
    student: nn.Sequential,
    batches: Iterable[Tensor | tuple[Tensor, ...]],
    sub_tasks: Sequence[Sequence[tuple[int, Sequence[int]]]],
    *,
    select: Literal["entropy", "all"] = "entropy",
    common_width: int = 32,
    num_steps: int = 200,
    lr: float = 3e-3,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> nn.Module:
    r"""Amalgamate sources into one component for each sub-task, and the components into a student.

    $$
    t^* = \arg\min_t H\big(\mathrm{softmax}\, z_t(x)\big), \qquad
    \mathcal{L}_1 = \|z_C - z_{t^*}\|^2 + \sum_l \big\| A_{C,t^*}^l F_C^l - A_{t^*}^l F_{t^*}^l \big\|^2
        + \sum_{t,l,i} \big(\|w_{t,i}^l\|^2 - 1\big)^2, \qquad
    \mathcal{L}_2 = \sum_k \Big( \|z_{T,k} - z_{C_k}\|^2 + \sum_l \big\| A_{T,k}^l F_T^l - F_{C_k}^l \big\|^2 \Big)
    $$

    with means instead of sums over units. The last term of the first loss keeps the sources' adapters from vanishing.

    Args:
        networks: the sources, each a `Sequential` of the same number L of stages, the last of which gives its scores;
            features are (n, units) or (n, channels, height, width), of one height and width at each stage.
        components: one `Sequential` of L stages for each sub-task, with as many scores as the sub-task has classes.
        student: a `Sequential` of L stages, with the scores of all sub-tasks, in their order.
        batches: inputs x, or tuples of which the first element is x; labels are never looked at.
        sub_tasks: for each sub-task the sources that know it, as pairs (number in `networks`, their scores for it).
        select: "entropy" has the least ambiguous source teach each input, "all" all alike. Default "entropy": the
            paper.
        common_width: width in which source and component are compared. Default 32: for toys.
        num_steps: optimiser steps (Adam) for each component and for the student. Default 200: for toys.
        lr: step size. Default 3e-3: for toys.
        generator: draws the initial adapters. Default None: a generator with seed 0.
        progress: called with the step, counted over all trainings, and the loss.

    Returns:
        A trained copy of `student`, in evaluation mode.

    Raises:
        ValueError: no sub-task or batch, other numbers of components, stages or scores, a sub-task without sources,
            an unknown option.

    Example:
        The first source is sure of the first input only (0.9 and 0.6), the second of the other (0.5 and 0.8).

        >>> first, second = torch.tensor([[0.9, 0.1], [0.6, 0.4]]).log(), torch.tensor([[0.5, 0.5], [0.2, 0.8]]).log()
        >>> least_ambiguous([first, second]).tolist()
        [0, 1]

    References:
        shen2019customizing, the sections on amalgamation of source nets into component nets (selective learning, feature
        alignment) and of component nets into the student.
    """
    inputs = [batch if isinstance(batch, Tensor) else batch[0] for batch in batches]
    if select not in ("entropy", "all") or not inputs or not sub_tasks or len(components) != len(sub_tasks):
        given = f"{len(components)} components for {len(sub_tasks)} sub-tasks, {len(inputs)} batches, select {select!r}"
        raise ValueError(f"received {given}; needed: a component for each sub-task, a batch at least, entropy or all")
    if any(not group for group in sub_tasks) or any(len(n) != len(student) for n in (*networks, *components)):
        raise ValueError(f"each sub-task needs a source, and all networks {len(student)} stages, as the student has")
    generator, count = generator or torch.Generator().manual_seed(0), itertools.count()
    report = lambda loss: None if progress is None else progress(next(count), loss)  # noqa: E731
    sources = [copy.deepcopy(network).eval() for network in networks]
    with torch.no_grad():
        features = [[_stages(source, x) for source in sources] for x in inputs]  # [batch][source][stage]

    trained = []
    for component, group in zip(components, sub_tasks):  # stage 1: one component for each sub-task
        teachers = [[(f[number][:-1], f[number][-1][:, list(columns)]) for number, columns in group] for f in features]
        trained.append(_component(component, inputs, teachers, select, common_width, num_steps, lr, generator, report))
    with torch.no_grad():
        known = [[_stages(component, x) for component in trained] for x in inputs]
        sizes = [f[-1].shape[1] for f in known[0]]
        own = [f.shape[1] for f in _stages(copy.deepcopy(student).eval(), inputs[0])]
    if own[-1] != sum(sizes):
        raise ValueError(f"the student has {own[-1]} scores; it needs the {sum(sizes)} of all sub-tasks")

    student = copy.deepcopy(student).train()  # stage 2: all components teach the student
    adapters = nn.ModuleList(Adapters(own[:-1], [f.shape[1] for f in c[:-1]], generator) for c in known[0]).to(inputs[0].device)

    def loss(step: int) -> Tensor:
        *feature, scores = _stages(student, inputs[step % len(inputs)])
        total = torch.zeros((), device=scores.device)
        for adapter, part, (*target, z) in zip(adapters, scores.split(sizes, dim=1), known[step % len(inputs)]):
            total = total + F.mse_loss(part, z) + sum(F.mse_loss(a, f) for a, f in zip(adapter(feature), target))
        return total

    _train([student, adapters], loss, num_steps, lr, report)
    return student.eval()


def _component(
    component: nn.Sequential, inputs: list[Tensor], teachers: list, select: str, width: int, num_steps: int, lr: float,
    generator: torch.Generator, report: Callable[[float], None],
) -> nn.Sequential:  # fmt: skip
    """Stage 1: a component learns each input from the source that is least in doubt."""
    component = copy.deepcopy(component).eval()
    with torch.no_grad():
        own = [f.shape[1] for f in _stages(component, inputs[0])]
        chosen = [least_ambiguous([z for _, z in batch]) for batch in teachers]
    if own[-1] != teachers[0][0][1].shape[1]:
        raise ValueError(f"a component has {own[-1]} scores, the sub-task {teachers[0][0][1].shape[1]}")
    common, sources = [width] * (len(own) - 1), len(teachers[0])
    theirs = nn.ModuleList(Adapters([f.shape[1] for f in fs], common, generator) for fs, _ in teachers[0]).to(inputs[0].device)
    ours = nn.ModuleList(Adapters(own[:-1], common, generator) for _ in range(sources)).to(inputs[0].device)

    def loss(step: int) -> Tensor:
        b = step % len(inputs)
        *feature, scores = _stages(component, inputs[b])
        total = sum(adapter.norm_penalty() for adapter in theirs)
        for t, (target, z) in enumerate(teachers[b]):
            taught = torch.ones_like(chosen[b]) / sources if select == "all" else chosen[b] == t
            total = total + _mean_square(scores - z, taught)
            total = total + sum(_mean_square(a - b, taught) for a, b in zip(ours[t](feature), theirs[t](target)))
        return total

    _train([component.train(), theirs, ours], loss, num_steps, lr, report)
    return component.eval()


def least_ambiguous(scores: Sequence[Tensor]) -> Tensor:
    """For each input the number of the source whose answer has the least entropy, (n,)."""
    log_p = torch.stack([z.log_softmax(dim=1) for z in scores])  # (sources, n, classes)
    entropy = -(log_p.exp() * log_p).sum(dim=2)
    return entropy.argmin(dim=0)


class Adapters(nn.Module):
    """One linear map of the channels for each stage."""

    def __init__(self, inputs: Sequence[int], outputs: Sequence[int], generator: torch.Generator) -> None:
        super().__init__()
        draw = lambda a, b: nn.Parameter(torch.randn(b, a, generator=generator) / a**0.5)  # noqa: E731
        self.weights = nn.ParameterList(map(draw, inputs, outputs))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        return [F.linear(f.movedim(1, -1), w).movedim(-1, 1) for f, w in zip(features, self.weights)]

    def norm_penalty(self) -> Tensor:
        """How far the rows are from length 1, so that the features compared cannot shrink to nothing."""
        return sum((w.square().sum(dim=1) - 1).square().mean() for w in self.weights)


def _mean_square(difference: Tensor, taught: Tensor) -> Tensor:
    """Mean of squares over units, of the inputs taught; divided by the number of all inputs."""
    return (difference.square().flatten(1).mean(dim=1) * taught).sum() / len(taught)


def _train(
    modules: Sequence[nn.Module], loss_at: Callable[[int], Tensor], num_steps: int, lr: float, report: Callable[[float], None]
) -> None:
    optimizer = torch.optim.Adam([p for module in modules for p in module.parameters()], lr=lr)
    for step in range(num_steps):
        loss = loss_at(step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        report(loss.item())


def _stages(network: nn.Sequential, x: Tensor) -> list[Tensor]:
    """The output of every stage."""
    return list(itertools.accumulate(network, lambda h, stage: stage(h), initial=x))[1:]
