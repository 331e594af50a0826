r"""Filtered amalgamation, the task-customised student of multi-task teachers (ye2019amalgamating).

Each teacher answers several yes-or-no questions about an input; a user wants some questions of each. One student is
trained for these and no others, without labels. It learns block by block, entangled with the teachers: after its
newest block, a filter for each teacher passes on what of the shared feature concerns the wanted questions of that
teacher, the teacher's own remaining blocks make answers from it, and only the wanted ones are compared with what the
teacher says of the input. Then the questions of each teacher branch out where that went best, their branches lose the
unwanted outputs, and the whole student is fine-tuned.

Notation: F_u^b the student's feature after block b, f_t^b the filter for teacher t, R_t^b the teacher's blocks after
block b, C_t the wanted outputs of teacher t, y_t its own outputs (scores before the logistic function), sigma the
logistic function.

Departures: the paper's own formula of the filters is not confirmed; here they are channel codings, as in the
companion method by the same authors. The order of the steps, the loss and the place of the filters are those of the
authors' PyTorch version.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reference_impls.distillation.intertwined_amalgamation import BranchedStudent, intertwined_amalgamation


def filtered_amalgamation(
    networks: Sequence[nn.Sequential],
    student: nn.Sequential,
    batches: Iterable[Tensor | tuple[Tensor, ...]],
    tasks: Sequence[Sequence[int]],
    *,
    targets: Literal["hard", "soft"] = "hard",
    num_steps: int = 100,
    finetune_steps: int = 200,
    lr: float = 3e-3,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> nn.Module:
    r"""Train one student for the wanted outputs of all teachers, each block through filters and the teachers' remaining blocks.

    $$
    \mathcal{L}^b = \sum_t \mathrm{BCE}\Big(\big[R_t^b(f_t^b(F_u^b))\big]_{C_t},\;
        \mathbb{1}\big[\sigma(y_t)_{C_t} > \tfrac12\big]\Big)
    $$

    Args:
        networks: the teachers, each a `Sequential` of the same blocks with its own last one, a linear layer with one
            score for each question.
        student: a `Sequential` of fewer blocks, after each of which the feature has the shape of the teachers' there.
        batches: inputs x, or tuples of which the first element is x; labels are never looked at.
        tasks: $C_t$, for each teacher the numbers of its wanted outputs; none for a teacher that is not needed.
        targets: what is learned of a teacher's answer, the answer itself ("hard": 0 or 1) or its probability
            ("soft"). Default "hard": the authors' PyTorch version.
        num_steps: optimiser steps (Adam) for each block. Default 100: for toys.
        finetune_steps: steps of the whole student at the end. Default 200: for toys.
        lr: step size. Default 3e-3: for toys.
        generator: draws the initial filters. Default None: a generator with seed 0.
        progress: called with the step, counted over all trainings, and the loss.

    Returns:
        The student in evaluation mode: maps x to the scores of the wanted questions, (n, sum of |C_t|), in the order of `tasks`.

    Raises:
        ValueError: another number of task lists than of teachers, no task at all, a number that a teacher has no
            output for, an unknown option, a last block that is not linear; and those of `intertwined_amalgamation`.

    Example:
        Of the first teacher's answers (3x, -x) the second is wanted, of the other's its only one.

        >>> def network(*slopes):
        ...     blocks = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, len(slopes), bias=False))
        ...     blocks[0].weight.data.fill_(1.0)
        ...     blocks[1].weight.data = torch.tensor(slopes)[:, None]
        ...     return blocks
        >>> x = torch.tensor([[1.0], [-1.0]])
        >>> trained = filtered_amalgamation([network(3.0, -1.0), network(2.0)], network(1.0)[:1], [x], [[1], [0]])
        >>> (trained(x) > 0).tolist()
        [[False, True], [True, False]]

    References:
        ye2019amalgamating, the sections on filtering and on the block-wise training of the student.
    """
    if len(tasks) != len(networks) or not any(tasks):
        raise ValueError(f"received {len(tasks)} lists of tasks for {len(networks)} teachers; each needs one, and one a task")
    if targets not in ("hard", "soft"):
        raise ValueError(f"targets is {targets!r}; it is one of hard, soft")
    customised = []
    for teacher, wanted in zip(networks, tasks):
        head = teacher[-1]
        if not isinstance(head, nn.Linear):
            raise ValueError(f"the last block of a teacher is {type(head).__name__}; it must be Linear")
        if any(not 0 <= task < head.out_features for task in wanted):
            raise ValueError(f"tasks are {list(wanted)}, of a teacher with {head.out_features} outputs")
        if wanted:  # answers that nobody asks for are cut off, and so is what would have taught them
            customised.append(nn.Sequential(*teacher[:-1], _rows(head, wanted)))
    losses = [hard_loss if targets == "hard" else soft_loss] * len(customised)
    branched = intertwined_amalgamation(
        customised, student, batches, losses=losses, num_steps=num_steps, finetune_steps=finetune_steps, lr=lr,
        generator=generator, progress=progress,
    )  # fmt: skip
    return CustomisedStudent(branched).eval()


class CustomisedStudent(nn.Module):
    """A branched student that gives the answers of all branches side by side."""

    def __init__(self, branched: BranchedStudent) -> None:
        super().__init__()
        self.branched = branched

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(self.branched(x), dim=1)


def hard_loss(scores: Tensor, teacher: Tensor) -> Tensor:
    """Binary cross-entropy with what the teacher answers, yes where its probability is above one half."""
    return F.binary_cross_entropy_with_logits(scores, (teacher > 0).to(scores.dtype))


def soft_loss(scores: Tensor, teacher: Tensor) -> Tensor:
    """Binary cross-entropy with the teacher's probabilities."""
    return F.binary_cross_entropy_with_logits(scores, teacher.sigmoid())


def _rows(layer: nn.Linear, rows: Sequence[int]) -> nn.Linear:
    """The linear layer with some of its outputs."""
    part = nn.utils.skip_init(nn.Linear, layer.in_features, len(rows), bias=layer.bias is not None).to(layer.weight.device)
    part.weight = nn.Parameter(layer.weight.detach()[list(rows)])
    if layer.bias is not None:
        part.bias = nn.Parameter(layer.bias.detach()[list(rows)])
    return part
