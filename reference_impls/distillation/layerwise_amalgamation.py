r"""Layer-wise knowledge amalgamation (shen2019amalgamating).

Teachers of one architecture that know different classes are amalgamated into one student that knows them all, without labels.
Layer by layer, the teachers' features of an input are put side by side and compressed by an auto-encoder into a feature as narrow
as the student's layer; the student's layers are then trained one after another to produce these compact features. Its last layer
learns the teachers' scores, side by side, as the scores of all classes together.

Notation: F_k^l the features of teacher k after stage l, F_a^l = [F_1^l, ..., F_K^l] along the channels; E_l and D_l the encoder
and decoder (1x1 convolutions; linear maps for flat features), G^l = E_l(F_a^l) the amalgamated feature; S_l stage l of the
student.

Departures: whether a stage of the student is trained on the amalgamated feature before it or on the student's own is not
confirmed; here the former is the default, followed by a joint training of all stages towards the scores (see `joint_steps`),
which also has to make up for their differences.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Progress = Callable[[int, float], None] | None


def layerwise_amalgamation(
    networks: Sequence[nn.Sequential],
    student: nn.Sequential,
    batches: Iterable[Tensor | tuple[Tensor, ...]],
    *,
    order: Literal["direct", "incremental"] = "direct",
    stage_inputs: Literal["amalgamated", "student"] = "amalgamated",
    num_steps: int = 200,
    joint_steps: int | None = None,
    lr: float = 3e-3,
    generator: torch.Generator | None = None,
    progress: Progress = None,
) -> nn.Module:
    r"""Train one student that keeps the classes of all teachers, from unlabelled inputs.

    $$
    \min_{E_l, D_l} \tfrac12 \big\| D_l(E_l(F_a^l)) - F_a^l \big\|^2, \qquad
    \min_{S_l} \tfrac12 \big\| S_l(G^{l-1}) - G^l \big\|^2, \qquad
    \min_{S} \tfrac12 \big\| S(x) - [z_1(x), \dots, z_K(x)] \big\|^2
    $$

    Args:
        networks: the teachers, each a `Sequential` of the same number L of stages, the last of which gives the scores; the
            features
            between are (n, units) or (n, channels, height, width).
        student: a `Sequential` of L stages with as many scores as all teachers together, in their order; its widths are the
            widths of the amalgamated features. A stage should end before its nonlinearity, as codes may be negative.
        batches: inputs x, or tuples of which the first element is x; labels are never looked at.
        order: "direct" encodes all teachers at once (DFA), "incremental" the first two, then their code with the third, and so on
            (IFA). Default "direct"; the paper studies both.
        stage_inputs: what a stage of the student sees while it is trained, the amalgamated feature of the stage before or the
            student's own. Default "amalgamated": a choice here.
        num_steps: optimiser steps (Adam) for each auto-encoder and each stage. Default 200: for toys.
        joint_steps: steps of all stages together towards the scores, at the end. Default None: as num_steps.
        lr: step size. Default 3e-3: for toys.
        generator: draws the auto-encoders' initial parameters. Default None: a generator with seed 0.
        progress: called with the step, counted over all trainings, and the loss.

    Returns:
        A trained copy of `student`, in evaluation mode.

    Raises:
        ValueError: no teachers, no batches, other numbers of stages or scores, an unknown option.

    Example:
        Two teachers of one score each, 2x and 3x, and a student of one stage: it learns both scores at once.

        >>> teachers = [nn.Sequential(nn.Linear(1, 1, bias=False)) for _ in range(2)]
        >>> for teacher, slope in zip(teachers, (2.0, 3.0)):
        ...     _ = teacher[0].weight.data.fill_(slope)
        >>> student = nn.Sequential(nn.Linear(1, 2, bias=False))
        >>> _ = student[0].weight.data.fill_(0.0)
        >>> trained = layerwise_amalgamation(teachers, student, [torch.tensor([[1.0], [-1.0]])], num_steps=300, lr=0.05)
        >>> [round(score, 2) for score in trained(torch.tensor([[1.0]]))[0].tolist()]
        [2.0, 3.0]

    References:
        shen2019amalgamating, the sections on feature amalgamation (direct and incremental) and on parameter learning.
    """
    inputs = [batch if isinstance(batch, Tensor) else batch[0] for batch in batches]
    _check(networks, student, inputs, order, stage_inputs)
    generator = generator or torch.Generator().manual_seed(0)
    counter = _Counter(progress)
    student = copy.deepcopy(student).train()

    with torch.no_grad():
        features = [[_stages(teacher, x) for teacher in networks] for x in inputs]  # [batch][teacher][stage]
        own = [_stages(student, x) for x in inputs]
    codes = []  # [stage][batch]: step 1, amalgamated features
    for l in range(len(student) - 1):
        parts = [[teacher[l] for teacher in batch] for batch in features]
        codes.append(_amalgamate(parts, own[0][l].shape[1], order, num_steps, lr, generator, counter))
    codes.append([torch.cat([teacher[-1] for teacher in batch], dim=1) for batch in features])  # scores, as they are

    before = inputs
    for stage, targets in zip(student, codes):  # step 2: one stage after another
        _fit(stage, before, targets, num_steps, lr, counter)
        if stage_inputs == "amalgamated":
            before = targets
        else:
            with torch.no_grad():
                before = [stage(x) for x in before]
    _fit(student, inputs, codes[-1], num_steps if joint_steps is None else joint_steps, lr, counter)
    return student.eval()


def _amalgamate(
    parts: list[list[Tensor]], width: int, order: str, num_steps: int, lr: float, generator: torch.Generator, counter: _Counter
) -> list[Tensor]:
    """Step 1: the code of the teachers' features, [batch][teacher] -> [batch]."""
    if order == "incremental" and len(parts[0]) > 2:
        first = _amalgamate([batch[:-1] for batch in parts], width, order, num_steps, lr, generator, counter)
        parts = [[code, batch[-1]] for code, batch in zip(first, parts)]
    joined = [torch.cat(batch, dim=1) for batch in parts]  # F_a
    pair = nn.Sequential(Pointwise(joined[0].shape[1], width, generator), Pointwise(width, joined[0].shape[1], generator))
    pair.to(joined[0].device)
    _fit(pair, joined, joined, num_steps, lr, counter)
    with torch.no_grad():
        return [pair[0](x) for x in joined]


def _fit(network: nn.Module, inputs: list[Tensor], targets: list[Tensor], num_steps: int, lr: float, counter: _Counter) -> None:
    """Half the squared error, summed over channels and averaged over the rest."""
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    for step in range(num_steps):
        x, y = inputs[step % len(inputs)], targets[step % len(inputs)]
        loss = 0.5 * (network(x) - y).square().sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        counter.report(loss.item())


class Pointwise(nn.Module):
    """A 1x1 convolution, or a linear map where there is no image: mixes channels at each place alike."""

    def __init__(self, inputs: int, outputs: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, generator=generator) / inputs**0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x.movedim(1, -1), self.weight, self.bias).movedim(-1, 1)


class _Counter:
    """Counts the steps of all trainings for `progress`."""

    def __init__(self, progress: Progress) -> None:
        self.progress, self.step = progress, 0

    def report(self, loss: float) -> None:
        if self.progress is not None:
            self.progress(self.step, loss)
        self.step += 1


def _stages(network: nn.Sequential, x: Tensor) -> list[Tensor]:
    """The output of every stage."""
    outputs = []
    for stage in network:
        x = stage(x)
        outputs.append(x)
    return outputs


def _check(networks: Sequence[nn.Sequential], student: nn.Sequential, inputs: list[Tensor], order: str, stage_inputs: str):
    if not networks or not inputs:
        raise ValueError(f"received {len(networks)} teachers and {len(inputs)} batches; at least one of each is needed")
    if order not in ("direct", "incremental") or stage_inputs not in ("amalgamated", "student"):
        raise ValueError(f"order is {order!r} (direct, incremental), stage_inputs {stage_inputs!r} (amalgamated, student)")
    if any(len(network) != len(student) for network in networks):
        stages = [len(network) for network in networks]
        raise ValueError(f"the teachers have {stages} stages, the student {len(student)}; one number is needed")
    with torch.no_grad():
        scores, own = sum(network(inputs[0]).shape[1] for network in networks), student(inputs[0]).shape[1]
    if scores != own:
        raise ValueError(f"the teachers have {scores} scores together and the student {own}; it needs all of theirs")
