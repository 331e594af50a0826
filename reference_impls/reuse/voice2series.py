r"""Voice2Series (yang2021voice2series).

A speech model that stays frozen classifies time series of any kind. A short series is padded to the length of an utterance, a
trainable waveform, the same for all series, is added on the padding, and each target label is answered by the mean probability of
a few speech labels. Only the waveform is trained. How well this can work is bounded by how near the speech model's outputs on
reprogrammed series come to its outputs on speech, which the sliced Wasserstein distance measures.

Notation: x a series of length d_T, H(x) the reprogrammed utterance of length d_S, theta the trainable waveform, M the mask that
is one on the padding; f the speech model's probabilities, B_c the speech labels of target label c; SW the sliced Wasserstein
distance.

Departures: none with the defaults. The authors' code adds theta everywhere (`mask=False`), repeats the series (`segments=3`),
drops out 40 % of theta in training (`dropout=0.4`) and puts the series of its first variant in the middle.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def voice2series(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    length: int,
    labels_per_class: int | None = None,
    mask: bool = True,
    segments: int = 1,
    dropout: float = 0.0,
    weight_decay: float = 0.0,
    num_steps: int = 200,
    lr: float = 0.05,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> nn.Module:
    r"""Train the waveform that makes a frozen speech model classify time series.

    $$
    H(x; \theta) = \mathrm{Pad}(x) + M \odot \theta, \qquad
    h_c(x) = \frac{1}{|B_c|} \sum_{s \in B_c} f\big(H(x; \theta)\big)_s, \qquad
    \min_\theta\ -\frac1n \sum_i \log h_{y_i}(x_i)
    $$

    Args:
        network: the speech model, maps waveforms (n, length) to logits over its labels; $f$ is their softmax.
        batches: the target task, pairs (series (n, d_T), targets (n,)); targets count from 0.
        length: $d_S$, samples of an utterance, at least `segments` times d_T.
        labels_per_class: $|B_c|$, disjoint groups of speech labels drawn at random. Default None: as many as there are for all.
        mask: whether the waveform leaves the places of the series free. Default True: the paper's H.
        segments: copies of the series, the first at the start and the others at equal distances. Default 1: the paper's H.
        dropout: share of the waveform's samples set to zero in each training step. Default 0: for toys.
        weight_decay: multiplies $\theta$'s squared norm in the loss. Default 0: for toys; 0.05 in the authors' code.
        num_steps: optimiser steps (Adam). Default 200: for toys.
        lr: step size. Default 0.05: the paper's experiments.
        generator: draws the label groups and the dropout. Default None: a generator with seed 0.
        progress: called with step and loss.

    Returns:
        A network from series to logarithms of $h$, (n, classes), each row normalised to sum to one; a frozen copy of `network`
        inside.

    Raises:
        ValueError: no data, an utterance too short for the series, too few speech labels.

    Example:
        The speech model hears whether the sum is positive; the classes of the series are below and above 2.

        >>> class Sign(nn.Module):
        ...     def forward(self, x):
        ...         return torch.stack([-x.sum(1), x.sum(1)], 1)
        >>> x = torch.tensor([[0.0], [1.0], [3.0], [4.0]])
        >>> program = voice2series(Sign(), [(x, torch.tensor([0, 0, 1, 1]))], length=3)
        >>> program(x).argmax(1).tolist(), program(x).exp().sum(1).tolist()
        ([0, 0, 1, 1], [1.0, 1.0, 1.0, 1.0])

    References:
        yang2021voice2series, Algorithm 1, the label mapping and the bound (here `sliced_wasserstein`).
    """
    data = list(batches)
    if not data:
        raise ValueError("received no batches; at least one is needed")
    if data[0][0].dim() != 2 or not 1 <= segments * data[0][0].shape[1] <= length:
        raise ValueError(f"{segments} series of shape {tuple(data[0][0].shape[1:])} do not fit into {length} samples")
    device, generator = data[0][0].device, generator or torch.Generator().manual_seed(0)
    model = Voice2Series(network, data[0][0].shape[1], length, mask, segments).to(device)
    num_classes = int(max(targets.max() for _, targets in data)) + 1
    with torch.no_grad():
        source = model.logits(data[0][0]).shape[1]
    size = source // num_classes if labels_per_class is None else labels_per_class
    if not 1 <= size * num_classes <= source:
        raise ValueError(f"{num_classes} classes of {size} speech labels each need more than the {source} that there are")
    groups = torch.randperm(source, generator=generator)[: num_classes * size].reshape(num_classes, size)
    model.register_buffer("groups", groups.to(device))

    optimizer = torch.optim.Adam([model.theta], lr=lr)
    for step in range(num_steps):
        series, targets = data[step % len(data)]
        kept = (torch.rand(length, generator=generator) >= dropout).to(device) / (1 - dropout)
        loss = F.nll_loss(model(series, kept), targets) + weight_decay * model.theta.square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if progress is not None:
            progress(step, loss.item())
    return model


class Voice2Series(nn.Module):
    """Padding, waveform, frozen speech model, label groups."""

    def __init__(self, network: nn.Module, short: int, length: int, mask: bool, segments: int) -> None:
        super().__init__()
        self.source = copy.deepcopy(network).requires_grad_(False).eval()
        places = torch.zeros(short, length)  # row i is one where sample i of the series is heard
        for segment in range(segments):
            start = segment * (length // short // segments) * short
            places[:, start : start + short] += torch.eye(short)
        self.register_buffer("places", places)
        self.register_buffer("mask", 1 - places.sum(0) if mask else torch.ones(length))
        self.theta = nn.Parameter(torch.zeros(length))

    def utterance(self, series: Tensor, kept: Tensor | float = 1.0) -> Tensor:
        return series @ self.places + self.mask * self.theta * kept

    def logits(self, series: Tensor, kept: Tensor | float = 1.0) -> Tensor:
        return self.source(self.utterance(series, kept))

    def forward(self, series: Tensor, kept: Tensor | float = 1.0) -> Tensor:
        shares = self.logits(series, kept).softmax(dim=1)[:, self.groups].mean(dim=2).clamp_min(1e-9)
        return (shares / shares.sum(dim=1, keepdim=True)).log()


def sliced_wasserstein(a: Tensor, b: Tensor, *, num_projections: int = 64, generator: torch.Generator | None = None) -> float:
    r"""Mean 1-Wasserstein distance of two equally large samples (n, d) along random directions of length one.

    Example:
        In one dimension it is the mean distance of the sorted values: (1 + 1) / 2.

        >>> sliced_wasserstein(torch.tensor([[0.0], [2.0]]), torch.tensor([[3.0], [1.0]]))
        1.0
    """
    if a.shape != b.shape:
        raise ValueError(f"received samples of shapes {tuple(a.shape)} and {tuple(b.shape)}; one shape is needed")
    generator = generator or torch.Generator().manual_seed(0)
    directions = F.normalize(torch.randn(a.shape[1], num_projections, generator=generator), dim=0).to(a)
    return ((a @ directions).sort(dim=0).values - (b @ directions).sort(dim=0).values).abs().mean().item()
