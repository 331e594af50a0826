r"""Adaptive discovering and merging, ADM (chen2024adaptive).

A model of known classes meets unlabelled examples of new ones. First the representation learns from them, by contrast of two
views and near to the known features. Discovery: a new classifier then gives the three views of an example, itself, a disturbed
copy and its nearest neighbour, one and the same class (triple comparison), while all new classes are used alike (probability
regularisation). Merging: the known model's layers stay as they are; beside each of them a parallel one learns, and the scales of
its batch normalisation decide, channel by channel, how much of it is let in. As both are linear, the parallel layers are folded
into the known ones afterwards: no parameter is added, and what the hybrid model computes stays the same.

Notation: W, b a frozen layer, V its parallel layer, gamma, beta, m, v the scale, shift, mean and variance of V's batch
normalisation; p the new classifier's probabilities; x' a disturbed copy of x, x~ its nearest neighbour in the batch.

Departures: the paper's exact triple and gate could not be confirmed; here the triple is (x, x', x~), compared by the logarithm of
the inner product of probabilities, and channels whose |gamma| stays under a threshold are closed. Known and new scores stand side
by side without calibration between them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def adaptive_discovering_merging(
    network: nn.Sequential,
    inputs: Tensor,
    *,
    num_new: int,
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    regularization: float = 2.0,
    distillation: float = 0.1,
    sparsity: float = 0.01,
    threshold: float = 0.01,
    batch_size: int = 64,
    contrast_steps: int = 200,
    num_steps: int = 300,
    lr: float = 3e-3,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> nn.Module:
    r"""Discover new classes in unlabelled data and merge what was learned into the known model.

    $$
    \mathcal{L}_1 = \mathrm{InfoNCE}\big(h(x), h(x')\big) + \mu \lVert h(x) - h_0(x) \rVert^2, \qquad
    \mathcal{L}_2 = -\log \langle p(x), p(x') \rangle - \log \langle p(x), p(\tilde x) \rangle
    + \lambda \sum_c \bar p_c \log \bar p_c + \mu \lVert h(x) - h_0(x) \rVert^2 + \nu \sum |\gamma|
    $$
    $$
    W \leftarrow W + \frac{\gamma}{\sqrt{v + \epsilon}} V, \quad b \leftarrow b + \beta - \frac{\gamma m}{\sqrt{v + \epsilon}}
    $$

    Args:
        network: the known model, a `Sequential` whose last module is the linear classifier of the known classes; linear layers
            and
            convolutions before it get parallel ones. $h_0$ is what enters the classifier.
        inputs: unlabelled examples of new classes, (n, ...).
        num_new: number of new classes, >= 2.
        augment: disturbs a batch. Default None: adds normal noise of a fifth of the inputs' standard deviation.
        regularization: $\lambda$. Default 2.0: for toys.
        distillation: $\mu$, keeps the features near the known model's. Default 0.1: for toys.
        sparsity: $\nu$, closes channels. Default 0.01: for toys.
        threshold: scales below it are closed when merging. Default 0.01: for toys.
        batch_size: examples a step. Default 64: for toys.
        contrast_steps: optimiser steps (Adam) of the representation. Default 200: for toys.
        num_steps: further steps of the discovery. Default 300: for toys.
        lr: step size. Default 3e-3: for toys.
        generator: source of all random numbers. Default None: a generator with seed 0.
        progress: called with the step, counted over both parts, and the loss.

    Returns:
        The merged model: `network`'s architecture with a classifier of known and then new classes, in evaluation mode.

    Raises:
        ValueError: a network without a final linear classifier, fewer than two new classes or examples.

    Example:
        Folding a parallel layer: scale 3, variance 4, mean 2, shift 1 add 3/2 V to W and 1 - 3 to b.

        >>> layer = Parallel(nn.Linear(1, 1), torch.Generator().manual_seed(0), eps=0.0)
        >>> for tensor, value in zip((*layer.known.parameters(), layer.new), (10.0, 20.0, 4.0)):
        ...     _ = tensor.data.fill_(value)
        >>> for tensor, value in zip((layer.scale, layer.shift, layer.mean, layer.variance), (3.0, 1.0, 2.0, 4.0)):
        ...     _ = tensor.data.fill_(value)
        >>> [p.item() for p in layer.merged(threshold=0.0).parameters()], layer.eval()(torch.ones(1, 1)).item()
        ([16.0, 18.0], 34.0)

    References:
        chen2024adaptive, the sections on discovering (triple comparison, probability regularization) and adaptive model merging.
    """
    *body, classifier = network
    if not isinstance(classifier, nn.Linear) or num_new < 2 or len(inputs) < 2:
        raise ValueError(f"received {type(classifier).__name__} as classifier, {num_new} new classes and {len(inputs)} examples")
    generator = generator or torch.Generator().manual_seed(0)
    frozen = copy.deepcopy(nn.Sequential(*body)).requires_grad_(False).eval()
    branches = [Parallel(m, generator) if isinstance(m, (nn.Linear, nn.Conv2d)) else m for m in copy.deepcopy(frozen)]
    hybrid = nn.Sequential(*branches).to(inputs.device)
    width = classifier.in_features
    draw = torch.randn(num_new, width, generator=generator) / width**0.5
    head, bias = draw.to(inputs.device).requires_grad_(True), torch.zeros(num_new, device=inputs.device, requires_grad=True)
    noise = 0.2 * inputs.std()
    disturb = augment or (lambda x, g: x + noise * torch.randn(x.shape, generator=g).to(x.device))
    scales = [layer.scale for layer in hybrid if isinstance(layer, Parallel)]

    optimizer = torch.optim.Adam([*(p for p in hybrid.parameters() if p.requires_grad), head, bias], lr=lr)
    hybrid.train()
    for step in range(contrast_steps + num_steps):
        x = inputs[torch.randperm(len(inputs), generator=generator)[:batch_size].to(inputs.device)]
        both = hybrid(torch.cat([disturb(x, generator) if step < contrast_steps else x, disturb(x, generator)])).flatten(1)
        loss = distillation * (both[: len(x)] - frozen(x).flatten(1)).square().mean()
        loss = loss + sparsity * sum(s.abs().sum() for s in scales)
        if step < contrast_steps:  # representation
            loss = loss + _contrast(*both.chunk(2))
        else:  # discovery
            p, copied = F.linear(both, head, bias).softmax(dim=1).chunk(2)
            unit = F.normalize(both[: len(x)].detach(), dim=1)
            neighbor = p[(unit @ unit.T).fill_diagonal_(-2).argmax(dim=1)]
            loss = loss - ((p * copied).sum(1).clamp_min(1e-9).log() + (p * neighbor).sum(1).clamp_min(1e-9).log()).mean()
            mean = torch.cat([p, copied]).mean(0)
            loss = loss + regularization * (mean * mean.clamp_min(1e-9).log()).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if progress is not None:
            progress(step, loss.item())

    joint = nn.utils.skip_init(nn.Linear, width, len(classifier.weight) + num_new).to(inputs.device)
    with torch.no_grad():
        old_bias = classifier.weight.new_zeros(len(classifier.weight)) if classifier.bias is None else classifier.bias
        joint.weight.copy_(torch.cat([classifier.weight, head]))
        joint.bias.copy_(torch.cat([old_bias, bias]))
    merged = [layer.merged(threshold) if isinstance(layer, Parallel) else layer for layer in hybrid]
    return nn.Sequential(*merged, joint).requires_grad_(True).eval()


def _contrast(a: Tensor, b: Tensor, temperature: float = 0.2) -> Tensor:
    """InfoNCE: of all second views, each first view must find its own."""
    similar = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / temperature
    return F.cross_entropy(similar, torch.arange(len(a), device=a.device))


class Parallel(nn.Module):
    """A frozen linear layer or convolution and, beside it, one that learns, let in by the scale of its batch normalisation."""

    def __init__(self, known: nn.Linear | nn.Conv2d, generator: torch.Generator, eps: float = 1e-5) -> None:
        super().__init__()
        self.known, self.eps = known, eps
        weight = known.weight
        self.new = nn.Parameter((torch.randn(weight.shape, generator=generator) / weight[0].numel() ** 0.5).to(weight.device))
        self.scale, self.shift = nn.Parameter(torch.zeros(len(weight))), nn.Parameter(torch.zeros(len(weight)))
        self.register_buffer("mean", torch.zeros(len(weight)))
        self.register_buffer("variance", torch.ones(len(weight)))

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.known, nn.Conv2d):
            c = self.known
            learned = F.conv2d(x, self.new, None, c.stride, c.padding, c.dilation, c.groups)
        else:
            learned = F.linear(x, self.new)
        learned = F.batch_norm(learned, self.mean, self.variance, self.scale, self.shift, self.training, 0.1, self.eps)
        return self.known(x) + learned

    @torch.no_grad()
    def merged(self, threshold: float) -> nn.Module:
        """One layer that computes the same: the parallel branch folded in, closed channels left out."""
        layer = copy.deepcopy(self.known)
        gate = (self.scale.abs() >= threshold) * self.scale / (self.variance + self.eps).sqrt()
        layer.weight += gate.reshape(-1, *[1] * (self.new.dim() - 1)) * self.new
        offset = torch.where(self.scale.abs() >= threshold, self.shift, 0) - gate * self.mean
        layer.bias = nn.Parameter(offset if layer.bias is None else layer.bias + offset)
        return layer
