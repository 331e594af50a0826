r"""Intertwined block-wise amalgamation, "student becoming the master" (ye2019student).

Teachers of one architecture solve different problems on the same images: one names the class of every pixel, another
one tells its depth. A student with one trunk is to do it all, without labels. The student learns block by block, and
intertwined with the teachers: after its newest block, a small channel coding projects the shared feature into each
teacher's domain, the teacher's own remaining blocks make a prediction from it, and the loss compares this with the
teacher's prediction from the image. Each task then branches out where its loss was least, with the teacher's
remaining blocks as its own, and all is fine-tuned together.

Notation: F_u^b the student's feature after block b, F_t^b = C_t^b(F_u^b) its projection for task t, with C the
channel coding; R_t^b the blocks of teacher t after block b; y_t the teacher's prediction; p_t the block after which
task t branches out.

Departures: the paper's two tasks become any number, trained at once (its "online" option). Whether earlier blocks go
on learning with later ones is not confirmed; here they do. That the depth loss is the reverse Huber loss is not
confirmed either.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

Loss = Callable[[Tensor, Tensor], Tensor]


def intertwined_amalgamation(
    networks: Sequence[nn.Sequential],
    student: nn.Sequential,
    batches: Iterable[Tensor | tuple[Tensor, ...]],
    *,
    losses: Sequence[Loss] | None = None,
    weights: Sequence[float] | None = None,
    num_steps: int = 100,
    finetune_steps: int = 200,
    lr: float = 3e-3,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> BranchedStudent:
    r"""Train one student for the problems of all teachers, each block through what the teachers make of it.

    $$
    C_t(F) = \sigma\big(W_2\, \mathrm{ReLU}(W_1\, \bar F)\big) \odot F, \qquad
    \mathcal{L}^b = \sum_t \lambda_t\, \ell_t\big(R_t^b(C_t^b(F_u^b)),\; y_t\big), \qquad
    p_t = \arg\min_b\, \ell_t^b
    $$

    with $\bar F$ the mean of each channel over the image.

    Args:
        networks: the teachers, each a `Sequential` of the same blocks with its own last ones; outputs of any shape.
        student: a `Sequential` of fewer blocks, after each of which the feature has the shape of the teachers' there.
            The paper starts it as a copy of a teacher's blocks.
        batches: inputs x, or tuples of which the first element is x; labels are never looked at.
        losses: one for each teacher, of the student's and the teacher's prediction. Default None: `reverse_huber` for
            predictions of one channel, else the cross-entropy with the teacher's softmax over channels.
        weights: $\lambda_t$, one for each teacher. Default None: all ones.
        num_steps: optimiser steps (Adam) for each block. Default 100: for toys.
        finetune_steps: steps of the branched student as a whole. Default 200: for toys.
        lr: step size. Default 3e-3: for toys.
        generator: draws the initial channel codings. Default None: a generator with seed 0.
        progress: called with the step, counted over all trainings, and the loss.

    Returns:
        The branched student in evaluation mode: maps x to a tuple of predictions, one for each teacher.
        `branches_after` says p_t.

    Raises:
        ValueError: no teachers, no batches, a student of as many blocks as a teacher, another number of losses or
            weights.

    Example:
        One block of student, two teachers that double and negate their feature: each branch is the teacher's rest.

        >>> def network(*slopes):
        ...     layers = [nn.Linear(1, 1, bias=False) for _ in slopes]
        ...     for layer, slope in zip(layers, slopes):
        ...         layer.weight.data.fill_(slope)
        ...     return nn.Sequential(*layers)
        >>> trained = intertwined_amalgamation([network(1, 2), network(1, -1)], network(0.5), [torch.ones(4, 1)], lr=0.02)
        >>> [round(prediction[0].item(), 1) for prediction in trained(torch.ones(1, 1))]
        [2.0, -1.0]
        >>> trained.branches_after
        (0, 0)

    References:
        ye2019student, the sections on amalgamation block by block (channel coding) and on branching out.
    """
    inputs = [batch if isinstance(batch, Tensor) else batch[0] for batch in batches]
    if not networks or not inputs:
        raise ValueError(f"received {len(networks)} teachers and {len(inputs)} batches; at least one of each is needed")
    if any(len(student) >= len(teacher) for teacher in networks):
        sizes = [len(teacher) for teacher in networks]
        raise ValueError(f"the student has {len(student)} blocks, the teachers {sizes}; it needs fewer than each")
    if any(options is not None and len(options) != len(networks) for options in (losses, weights)):
        raise ValueError(f"one loss and one weight for each of the {len(networks)} teachers are needed")

    teachers = [copy.deepcopy(teacher).eval().requires_grad_(False) for teacher in networks]
    with torch.no_grad():
        targets = [[teacher(x) for teacher in teachers] for x in inputs]
        widths, x = [], inputs[0]
        for block in copy.deepcopy(student).eval():
            x = block(x)
            widths.append(x.shape[1])
    losses = losses or [reverse_huber if y.shape[1] == 1 else soft_cross_entropy for y in targets[0]]
    weights = [1.0] * len(teachers) if weights is None else weights
    generator, device = generator or torch.Generator().manual_seed(0), inputs[0].device
    count = 0

    def train(model: nn.Module, predict: Callable[[Tensor], Sequence[Tensor]], steps: int) -> Tensor:
        """Adam on the weighted sum; returns the mean loss of each task after it."""
        nonlocal count
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=lr)
        for step in range(steps):
            x, y = inputs[step % len(inputs)], targets[step % len(inputs)]
            loss = sum(w * f(o, target) for w, f, o, target in zip(weights, losses, predict(x), y))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if progress is not None:
                progress(count, loss.item())
            count += 1
        with torch.no_grad():
            values = [[f(o, t) for f, o, t in zip(losses, predict(x), y)] for x, y in zip(inputs, targets)]
        return torch.tensor(values).mean(dim=0)

    blocks, codings, by_block = copy.deepcopy(student).train(), [], []
    for b, width in enumerate(widths):  # step 1: block by block, through the teachers' remaining blocks
        codings.append(nn.ModuleList(ChannelCoding(width, generator) for _ in teachers).to(device))
        trunk, coding = blocks[: b + 1], codings[b]
        predict = lambda x: [t[b + 1 :](c(f)) for f in (trunk(x),) for t, c in zip(teachers, coding)]  # noqa: E731, B023
        by_block.append(train(nn.ModuleList([trunk, coding]), predict, num_steps))

    after = torch.stack(by_block).argmin(dim=0).tolist()  # step 2: each task branches out where its loss was least
    branches = [nn.Sequential(codings[p][t], *copy.deepcopy(networks[t][p + 1 :])) for t, p in enumerate(after)]
    result = BranchedStudent(blocks[: max(after) + 1], branches, after).train().requires_grad_(True)
    train(result, result, finetune_steps)  # step 3: the whole student
    return result.eval()


class ChannelCoding(nn.Module):
    """Weighs each channel by a number in (0, 1) computed from all channels' means, through a quarter of the width."""

    def __init__(self, width: int, generator: torch.Generator) -> None:
        super().__init__()
        hidden = max(width // 4, 1)
        self.first = nn.Parameter(torch.randn(hidden, width, generator=generator) / width**0.5)
        self.second = nn.Parameter(torch.randn(width, hidden, generator=generator) / hidden**0.5)

    def forward(self, x: Tensor) -> Tensor:
        means = x.flatten(2).mean(dim=2) if x.dim() > 2 else x
        gates = torch.sigmoid(torch.relu(means @ self.first.T) @ self.second.T)
        return x * gates.reshape(*gates.shape, *[1] * (x.dim() - 2))


class BranchedStudent(nn.Module):
    """A shared trunk of blocks, out of which one branch for each task grows after the block `branches_after[t]`."""

    def __init__(self, trunk: nn.Sequential, branches: Sequence[nn.Module], branches_after: Sequence[int]) -> None:
        super().__init__()
        self.trunk, self.branches, self.branches_after = trunk, nn.ModuleList(branches), tuple(branches_after)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        features = []
        for block in self.trunk:
            x = block(x)
            features.append(x)
        return tuple(branch(features[after]) for branch, after in zip(self.branches, self.branches_after))


def soft_cross_entropy(prediction: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of the prediction with the softmax of the target, over channels; the mean over images and places."""
    return -(target.softmax(dim=1) * prediction.log_softmax(dim=1)).sum(dim=1).mean()


def reverse_huber(prediction: Tensor, target: Tensor) -> Tensor:
    """|d| where the error is small, (d^2 + c^2) / 2c where it is above c, a fifth of the largest error; the mean."""
    d = (prediction - target).abs()
    c = (0.2 * d.detach().max()).clamp_min(1e-9)
    return torch.where(d <= c, d, (d.square() + c.square()) / (2 * c)).mean()
