r"""Sequence- and task-level amalgamation of transformer detectors (zhang2023knowledge).

Detectors that find different classes of objects in images are amalgamated into one that finds them all, without labels.
A transformer works on a sequence of tokens of any length, so nothing needs to be compressed: the student projects an
image to as many sequences as there are teachers, puts them one after the other, and each of its parts is to become the
sequence of one teacher, layer by layer. What the teachers find with confidence are the targets of the student's
predictions, with the teachers' soft scores for the classes.

Notation: X_m^l the tokens of teacher m after layer l, (T, d); S^l those of the student, (M T, d) with parts S_m^l; p
and b a prediction's class probabilities and box; K the number of objects the teachers find, sigma the assignment of
predictions to them.

Departures: the student's loss on labels is left out (the authors' code has it too); the sequences are those of the
encoder. The weights of the hint and of the targets, the threshold and the most objects kept are not confirmed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reference_impls.core.permutation import solve_assignment


class Detection(NamedTuple):
    """What a detector returns of n images."""

    sequences: Sequence[Tensor]  # tokens after each layer (n, T, d)
    scores: Tensor  # (n, Q, 1 + classes); the first says "no object"
    boxes: Tensor  # (n, Q, 4): centre x, centre y, width, height, in [0, 1]


def sequence_task_amalgamation(
    networks: Sequence[nn.Module],
    student: nn.Module,
    batches: Iterable[Tensor | tuple[Tensor, ...]],
    *,
    sequence: Literal["concatenate", "aggregate"] = "concatenate",
    hint_weight: float = 1.0,
    task_weight: float = 1.0,
    box_weight: float = 5.0,
    giou_weight: float = 2.0,
    no_object_weight: float = 0.1,
    temperature: float = 4.0,
    threshold: float = 0.5,
    max_objects: int = 10,
    num_steps: int = 200,
    lr: float = 1e-3,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> nn.Module:
    r"""Train one detector towards the token sequences and the findings of several.

    $$
    \mathcal{L}_{SA} = \sum_l \sum_m \frac{1}{T d} \big\| \mathrm{LN}(S_m^l) - \mathrm{LN}(X_m^l) \big\|^2, \qquad
    \mathcal{L}_{TA} = \frac{\sum_{k} \tau^2\, \mathrm{KL}\big(p_k^{1/\tau} \| \hat p_{\sigma(k)}^{1/\tau}\big)
    - w \sum_{q \notin \sigma} \log \hat p_q(\varnothing)}{K + w\,|\{q \notin \sigma\}|}
    + \frac{1}{K} \sum_k \lambda_1 \big\| b_k - \hat b_{\sigma(k)} \big\|_1
    + \lambda_2 \big(1 - \mathrm{GIoU}(b_k, \hat b_{\sigma(k)})\big)
    $$

    The assignment has the least $-\hat p_q(c_k) + \lambda_1 \|b_k - \hat b_q\|_1 - \lambda_2 \mathrm{GIoU}$ in sum.

    Args:
        networks: the teachers, image batches to `Detection`; each has its own classes, all have sequences of one length.
        student: a detector whose sequences are as long as those of all teachers together (as long as one teacher's for
            "aggregate") and whose scores are "no object" and the classes of all teachers, in their order.
        batches: inputs, or tuples of which the first element is inputs; labels are never looked at.
        sequence: "concatenate" (the paper), or "aggregate": the student's sequence follows a learned linear map of the
            teachers' features side by side, the way of amalgamation for convolutional networks that the paper compares
            with. Default "concatenate": the paper.
        hint_weight: of L_SA. Default 1: not confirmed.
        task_weight: of L_TA. Default 1: not confirmed.
        box_weight: $\lambda_1$. Default 5: DETR.
        giou_weight: $\lambda_2$. Default 2: DETR.
        no_object_weight: w. Default 0.1: DETR.
        temperature: $\tau > 0$. Default 4: the authors' code.
        threshold: least probability of an object that a teacher finds, in [0, 1). Default 0.5: not confirmed.
        max_objects: most objects kept of an image, the surest. Default 10: not confirmed.
        num_steps: optimiser steps (Adam). Default 200: for toys.
        lr: step size. Default 1e-3: for toys.
        generator: draws the map of "aggregate". Default None: a generator with seed 0.
        progress: called with step and loss.

    Returns:
        A trained copy of `student`, in evaluation mode.

    Raises:
        ValueError: no teachers or batches, another length of sequences or number of scores, an unknown option.

    Example:
        Boxes of width 0.4 around 0.3 and 0.5: they share half of their widths, 1/3 of their union, which is their hull.

        >>> a, b = torch.tensor([[0.3, 0.5, 0.4, 1.0]]), torch.tensor([[0.5, 0.5, 0.4, 1.0]])
        >>> generalised_iou(a, b).round(decimals=4)
        tensor([0.3333])

    References:
        zhang2023knowledge, the sections on sequence-level and task-level amalgamation.
    """
    inputs = [batch if isinstance(batch, Tensor) else batch[0] for batch in batches]
    if not networks or not inputs:
        raise ValueError(f"received {len(networks)} teachers and {len(inputs)} batches; at least one of each is needed")
    if sequence not in ("concatenate", "aggregate"):
        raise ValueError(f"sequence is {sequence!r}; it is one of concatenate, aggregate")
    teachers = [copy.deepcopy(network).eval() for network in networks]
    student = copy.deepcopy(student).eval()
    with torch.no_grad():  # the teachers never change: computed once
        told = [[teacher(x) for teacher in teachers] for x in inputs]
        own, first = student(inputs[0]), told[0]
        objects = [find_objects(row, threshold, min(max_objects, own.boxes.shape[1])) for row in told]
    length, classes = sum(t.sequences[0].shape[1] for t in first), 1 + sum(t.scores.shape[2] - 1 for t in first)
    length //= 1 if sequence == "concatenate" else len(first)
    if own.sequences[0].shape[1] != length or own.scores.shape[2] != classes:
        own_size = f"{own.sequences[0].shape[1]} tokens and {own.scores.shape[2]} scores"
        raise ValueError(f"the student has {own_size}; {length} and {classes} are needed")
    generator = generator or torch.Generator().manual_seed(0)
    width = own.sequences[0].shape[2]
    draw = torch.randn(width * len(teachers), width, generator=generator) / (width * len(teachers)) ** 0.5
    mixing = nn.Parameter(draw.to(inputs[0].device))  # used by "aggregate" alone
    student.train()
    optimizer = torch.optim.Adam([*student.parameters(), mixing], lr=lr)
    norm = lambda s: F.layer_norm(s, s.shape[-1:])  # noqa: E731
    for step in range(num_steps):
        x, teacher_says, found = (part[step % len(inputs)] for part in (inputs, told, objects))
        out = student(x)
        hint = x.new_zeros(())  # sequence level
        for l, tokens in enumerate(out.sequences):
            theirs = [norm(t.sequences[l]) for t in teacher_says]
            parts = tokens.chunk(len(theirs), dim=1)
            if sequence == "aggregate":
                parts, theirs = [tokens], [torch.cat(theirs, dim=2) @ mixing]
            hint = hint + sum(F.mse_loss(norm(s), t) for s, t in zip(parts, theirs))
        task = set_loss(out, found, (box_weight, giou_weight, no_object_weight), temperature)  # task level
        loss = hint_weight * hint + task_weight * task
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if progress is not None:
            progress(step, loss.item())
    return student.eval()


class Objects(NamedTuple):
    """Objects of n images, at most K each."""

    scores: Tensor  # (n, K, 1 + classes)
    boxes: Tensor  # (n, K, 4)
    exist: Tensor  # (n, K)


def find_objects(told: Sequence[Detection], threshold: float, max_objects: int) -> Objects:
    """The objects that the teachers find, the surest first; classes that the finder does not know get the score -5."""
    widths = [t.scores.shape[2] - 1 for t in told]
    everything = []
    for m, t in enumerate(told):
        scores = t.scores.new_full((*t.scores.shape[:2], 1 + sum(widths)), -5.0)
        scores[:, :, 0] = t.scores[:, :, 0]
        scores[:, :, 1 + sum(widths[:m]) : 1 + sum(widths[: m + 1])] = t.scores[:, :, 1:]
        sure, label = t.scores.softmax(dim=2).max(dim=2)
        everything.append((scores, t.boxes, torch.where((label > 0) & (sure > threshold), sure, 0)))
    scores, boxes, sure = (torch.cat(part, dim=1) for part in zip(*everything))
    order = sure.argsort(dim=1, descending=True, stable=True)[:, :max_objects]
    rows = torch.arange(len(scores), device=scores.device)[:, None]
    return Objects(scores[rows, order], boxes[rows, order], sure[rows, order] > 0)


def set_loss(out: Detection, found: Objects, weights: tuple[float, float, float], temperature: float) -> Tensor:
    """The losses of the classes and the boxes, after the best assignment of predictions to objects."""
    box_weight, giou_weight, no_object = weights
    log_p = out.scores.log_softmax(dim=2)  # (n, Q, 1 + classes)
    distance = (found.boxes[:, :, None] - out.boxes[:, None]).abs().sum(dim=3)  # (n, K, Q)
    overlap = generalised_iou(found.boxes[:, :, None], out.boxes[:, None])
    label = found.scores[:, :, 1:].argmax(dim=2) + 1
    sure = log_p.exp().transpose(1, 2).gather(1, label[:, :, None].expand_as(distance))  # of the object's class
    likeness = sure - box_weight * distance + giou_weight * overlap
    i, k = found.exist.nonzero(as_tuple=True)
    exist, likeness = found.exist.cpu(), likeness.detach().cpu()
    q = torch.cat([solve_assignment(likeness[j, exist[j]]) for j in range(len(exist))]).to(i.device)  # sigma
    soft = (out.scores[i, q] / temperature).log_softmax(dim=1)
    kl = temperature**2 * F.kl_div(soft, (found.scores[i, k] / temperature).softmax(dim=1), reduction="sum")
    free = torch.ones_like(log_p[:, :, 0]).index_put((i, q), log_p.new_zeros(()))
    nothing = -no_object * (free * log_p[:, :, 0]).sum()
    boxes = (box_weight * distance + giou_weight * (1 - overlap))[i, k, q].sum()
    return (kl + nothing) / (len(i) + no_object * free.sum()).clamp_min(1e-9) + boxes / max(len(i), 1)


def generalised_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union, less the share of the hull that neither covers, of boxes (..., 4)."""
    low_a, low_b = a[..., :2] - a[..., 2:] / 2, b[..., :2] - b[..., 2:] / 2
    high_a, high_b = a[..., :2] + a[..., 2:] / 2, b[..., :2] + b[..., 2:] / 2
    inner = (torch.minimum(high_a, high_b) - torch.maximum(low_a, low_b)).clamp_min(0).prod(dim=-1)
    hull = (torch.maximum(high_a, high_b) - torch.minimum(low_a, low_b)).prod(dim=-1).clamp_min(1e-9)
    union = (a[..., 2:].prod(dim=-1) + b[..., 2:].prod(dim=-1) - inner).clamp_min(1e-9)
    return inner / union - (hull - union) / hull
