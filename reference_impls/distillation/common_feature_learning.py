r"""Common feature learning (luo2019knowledge).

Teachers of any architecture, each of which knows its own classes, are amalgamated into one student from inputs
without labels. Their last features differ in size and meaning, so that the student cannot copy them. An adapter for
each network brings the features to one size, and one extractor, shared by all, maps them into a common space. There
the student's features follow the distribution of every teacher's, decoders see to it that the teachers' features can
be got back from the common space, and the student's scores follow the teachers' scores, side by side.

Notation: F_i and F_S the last features of teacher i and of the student, c_i and c_S the heads that turn them into
scores; h_i and h_S what the adapters and the shared extractor make of them; F'_i the feature of teacher i decoded
from h_i; alpha the share of the scores.

Departures: the extractor's three residual blocks have no batch normalisation. The value of alpha, the width of the
common space and whether squared errors are sums or means are not confirmed; here alpha is 1/2 and they are means.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def common_feature_learning(
    networks: Sequence[nn.Sequential],
    student: nn.Sequential,
    batches: Iterable[Tensor | tuple[Tensor, ...]],
    *,
    alpha: float = 0.5,
    common_width: int = 32,
    sigmas: Sequence[float] = (0.001, 0.01, 0.05, 0.1, 0.2, 1.0, 2.0),
    soft_targets: Literal["squared", "kl"] = "squared",
    num_steps: int = 200,
    lr: float = 3e-3,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> nn.Module:
    r"""Train one student whose features follow those of all teachers in a space learned with it.

    $$
    \mathcal{L} = \alpha\,\mathcal{L}_C + (1 - \alpha)\,(\mathcal{L}_M + \mathcal{L}_R), \qquad
    \mathcal{L}_C = \big\| c_S(F_S) - [c_1(F_1), \dots, c_N(F_N)] \big\|^2, \qquad
    \mathcal{L}_M = \sum_i \mathrm{MMD}^2(h_S, h_i), \qquad
    \mathcal{L}_R = \sum_i \big\| F_i' - F_i \big\|^2
    $$

    Args:
        networks: the teachers, each a `Sequential` whose last stage is its head; the features before it are (n,
            units) or (n, channels, height, width), of the same height and width in all networks.
        student: a `Sequential` of the same kind with as many scores as all teachers together, in their order.
        batches: inputs x, or tuples of which the first element is x; labels are never looked at. At least two inputs
            a batch.
        alpha: $\alpha$ in [0, 1]; 1 is plain distillation of the scores. Default 0.5: not confirmed.
        common_width: channels of the common space. Default 32: for toys.
        sigmas: widths of the Gaussian kernels that the maximum mean discrepancy sums. Default: the authors' code.
        soft_targets: "squared" errors of the scores or the divergence "kl" of their softmax (KamalEngine). Default
            "squared": the paper.
        num_steps: optimiser steps (Adam). Default 200: for toys.
        lr: step size. Default 3e-3: for toys.
        generator: draws the initial adapters, extractor and decoders. Default None: a generator with seed 0.
        progress: called with step and loss.

    Returns:
        A trained copy of `student`, in evaluation mode; the common space is dropped.

    Raises:
        ValueError: no teachers, no batches, alpha outside [0, 1], an unknown option, another number of scores.

    Example:
        Two teachers of one score each, 2x and 3x: the student learns both.

        >>> def line(*slopes):
        ...     network = nn.Sequential(nn.Identity(), nn.Linear(1, len(slopes), bias=False))
        ...     network[1].weight.data = torch.tensor(slopes)[:, None]
        ...     return network
        >>> batches = [torch.tensor([[1.0], [-1.0]])]
        >>> trained = common_feature_learning([line(2.0), line(3.0)], line(0.0, 0.0), batches, lr=0.05)
        >>> [round(score, 2) for score in trained(torch.tensor([[1.0]]))[0].tolist()]
        [2.0, 3.0]

    References:
        luo2019knowledge, common feature learning, soft targets and the loss of both.
    """
    inputs = [batch if isinstance(batch, Tensor) else batch[0] for batch in batches]
    if not networks or not inputs:
        raise ValueError(f"received {len(networks)} teachers and {len(inputs)} batches; at least one of each is needed")
    if not 0 <= alpha <= 1 or soft_targets not in ("squared", "kl"):
        raise ValueError(f"alpha is {alpha}, in [0, 1], and soft_targets {soft_targets!r}, one of squared, kl")
    teachers = [copy.deepcopy(teacher).eval() for teacher in networks]
    student = copy.deepcopy(student).train()
    with torch.no_grad():  # the teachers never change: computed once
        features = [[teacher[:-1](x) for teacher in teachers] for x in inputs]
        scores = [torch.cat([teacher[-1](f) for teacher, f in zip(teachers, row)], dim=1) for row in features]
        own = student[:-1].eval()(inputs[0]).shape[1]
        if student.eval()(inputs[0]).shape[1] != scores[0].shape[1]:
            raise ValueError(f"the student has other than the {scores[0].shape[1]} scores that the teachers have together")

    student.train()
    widths = [f.shape[1] for f in features[0]]
    space = CommonSpace(own, widths, common_width, generator or torch.Generator().manual_seed(0)).to(inputs[0].device)
    optimizer = torch.optim.Adam([*student.parameters(), *space.parameters()], lr=lr)
    for step in range(num_steps):
        x, fs, target = (part[step % len(inputs)] for part in (inputs, features, scores))
        f_s = student[:-1](x)
        h_s, hs, decoded = space(f_s, fs)
        loss_m = sum(squared_mmd(h_s, h, sigmas) for h in hs)
        loss_r = sum(F.mse_loss(d, f) for d, f in zip(decoded, fs))
        loss_c = _soft_target_loss(student[-1](f_s), target, soft_targets)
        loss = alpha * loss_c + (1 - alpha) * (loss_m + loss_r)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if progress is not None:
            progress(step, loss.item())
    return student.eval()


class CommonSpace(nn.Module):
    """Adapters for the student and each teacher, one extractor for all, and decoders back to the teachers' features."""

    def __init__(self, student: int, teachers: Sequence[int], width: int, generator: torch.Generator) -> None:
        super().__init__()
        conv = lambda a, b, size: nn.utils.skip_init(nn.Conv2d, a, b, size, padding=size // 2)  # noqa: E731
        self.adapters = nn.ModuleList(conv(channels, width, 1) for channels in (student, *teachers))
        self.extractor = nn.ModuleList(nn.Sequential(conv(width, width, 3), nn.ReLU(), conv(width, width, 3)) for _ in range(3))
        self.decoders = nn.ModuleList(nn.Sequential(conv(width, c, 1), nn.ReLU(), conv(c, c, 1)) for c in teachers)
        for layer in (module for module in self.modules() if isinstance(module, nn.Conv2d)):
            torch.nn.init.normal_(layer.weight, std=(layer.in_channels * layer.kernel_size[0] ** 2) ** -0.5, generator=generator)
            torch.nn.init.zeros_(layer.bias)

    def forward(self, own: Tensor, features: Sequence[Tensor]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """The common features of the student and of the teachers, and the teachers' features decoded again."""
        images = [f if f.dim() == 4 else f[:, :, None, None] for f in (own, *features)]  # a vector is an image of one pixel
        h = torch.cat([torch.relu(adapter(image)) for adapter, image in zip(self.adapters, images)])
        for block in self.extractor:
            h = torch.relu(h + block(h))
        common = list(h.chunk(len(images)))
        decoded = [decoder(h).reshape(f.shape) for decoder, h, f in zip(self.decoders, common[1:], features)]
        return common[0], common[1:], decoded


def squared_mmd(a: Tensor, b: Tensor, sigmas: Sequence[float]) -> Tensor:
    r"""The squared maximum mean discrepancy of two batches, flattened and scaled to length 1, with the sum of Gaussian kernels.

    $\frac{1}{n^2}\sum_{ij} k(a_i, a_j) + k(b_i, b_j) - 2 k(a_i, b_j)$
    with $k(x, y) = \sum_\sigma \exp(-\|x - y\|^2 / 2\sigma^2)$.
    """
    a, b = F.normalize(a.flatten(1), dim=1), F.normalize(b.flatten(1), dim=1)
    widths = a.new_tensor(list(sigmas))[:, None, None]
    kernel = lambda p, q: (-(2 - 2 * p @ q.T).clamp_min(0) / (2 * widths**2)).exp().sum(dim=0)  # noqa: E731
    return (kernel(a, a) + kernel(b, b) - 2 * kernel(a, b)).mean()


def _soft_target_loss(scores: Tensor, target: Tensor, how: str) -> Tensor:
    """Squared error, averaged over inputs and scores, or KL(teachers || student) of the softmax over all classes."""
    if how == "kl":
        return F.kl_div(scores.log_softmax(dim=1), target.log_softmax(dim=1), log_target=True, reduction="batchmean")
    return F.mse_loss(scores, target)
