r"""Parametric knowledge transfer, "neural nuggets" (zhong2024seeking).

A large language model hands knowledge of a task to a small one by its parameters and not by its answers. A few seed
examples show which parameters of the large model matter for the task: those whose product with the gradient is large.
The most sensitive layers are kept, as many as the small model has, and of each of their matrices the most sensitive
part of the small model's shape. A singular value decomposition cuts these parts to low rank, and the two factors are
where a low-rank adapter of the small model starts. It starts with its own product subtracted, so that the small model
is at first what it was, and is fine-tuned on the task.

Notation: theta the large model's parameters, S their sensitivity, W a weight matrix of the small model, W_ext the
part extracted for it, r the rank, B and A the factors that are trained, B_0 and A_0 where they start.

Departures: none known. The authors' configuration of the adapter's scale is not confirmed; here it is 1. A block that
is moved within the matrix by rows and columns of highest mean sensitivity, which the authors' code has without using
it, is an option.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

Progress = Callable[[int, float], None] | None


def parametric_knowledge_transfer(
    network: nn.Module,
    student: nn.Module,
    seeds: Iterable[tuple[Tensor, Tensor]],
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    rank: int = 16,
    layers: str = "blocks",
    extract: Literal["submatrix", "rows and columns", "random"] = "submatrix",
    scaling: float = 1.0,
    num_steps: int = 200,
    lr: float = 1e-3,
    generator: torch.Generator | None = None,
    progress: Progress = None,
) -> nn.Module:
    r"""Start a small model's adapter from the most sensitive parts of a large model's matrices and fine-tune it.

    $$
    S = \sum_{(x, y)} \Big| \theta \odot \frac{\partial L(x, y)}{\partial \theta} \Big|, \qquad
    W_{\mathrm{ext}} = \arg\max_{W' \subset \theta_l} \sum_{ij} S(W')_{ij}, \qquad
    W_{\mathrm{ext}} \approx U_r \Sigma_r V_r^\top = B_0 A_0, \qquad
    W \leftarrow W + s\,(BA - B_0 A_0)
    $$

    Args:
        network: the large model; inputs to scores whose last dimension is classes (or tokens).
        student: the small model of the same kind: the same names, fewer layers, each matrix no larger than the large
            model's.
        seeds: pairs of inputs and targets, of which each example is looked at by itself; 32 or fewer are enough in
            the paper.
        batches: pairs of inputs and targets for the fine-tuning.
        rank: $r$, at least 1. Default 16: the authors' code.
        layers: name of the list of layers: a parameter `blocks.3.attention.q.weight` belongs to layer 3. Default
            "blocks": the toy zoo.
        extract: "submatrix" takes the adjacent rows and columns of highest total sensitivity (the paper and the
            authors' code); "rows and columns" those of highest mean sensitivity, adjacent or not; "random" no part of
            the large model but an adapter as usual, A Gaussian and B zero: the baseline. Default "submatrix": the
            paper.
        scaling: $s$, multiplies the low-rank update. Default 1: not confirmed.
        num_steps: optimiser steps (Adam) of the factors. Default 200: for toys.
        lr: step size. Default 1e-3: for toys.
        generator: draws the Gaussian factors of "random". Default None: a generator with seed 0.
        progress: called with step and loss.

    Returns:
        A copy of `student` with the trained update added to its matrices, in evaluation mode.

    Raises:
        ValueError: no seeds or batches, rank below 1, an unknown option, a matrix of the student that is larger than
            the large model's or that it does not have, a student of more layers.

    Example:
        Of the 2 x 2 blocks of these sensitivities the one at the lower right has the largest sum, 9.

        >>> sensitivity = torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 4.0], [0.0, 3.0, 2.0]])
        >>> most_sensitive(torch.arange(9.0).reshape(3, 3), sensitivity, (2, 2))
        tensor([[4., 5.],
                [7., 8.]])

    References:
        zhong2024seeking, knowledge extraction (sensitivity, layer selection, dimensionality reduction) and injection.
    """
    examples = [(x[i : i + 1], y[i : i + 1]) for x, y in seeds for i in range(len(x))]
    data = list(batches)
    if not examples or not data:
        raise ValueError(f"received {len(examples)} seeds and {len(data)} batches; at least one of each is needed")
    if rank < 1 or extract not in ("submatrix", "rows and columns", "random"):
        raise ValueError(f"rank is {rank}, at least 1, and extract {extract!r}, one of submatrix, rows and columns, random")
    small = copy.deepcopy(student).eval().requires_grad_(False)
    weights = {name: p for name, p in small.named_parameters() if p.dim() == 2}
    generator = generator or torch.Generator().manual_seed(0)
    if extract == "random":
        draw = lambda n, m: torch.randn(n, m, generator=generator) / m**0.5  # noqa: E731
        start = {n: (w.new_zeros(w.shape[0], rank), draw(rank, w.shape[1]).to(w)) for n, w in weights.items()}
    else:
        parts = _extract(copy.deepcopy(network).eval(), weights, examples, layers, extract)
        start = {name: factors(part, rank) for name, part in parts.items()}

    trained = {name: (b.clone().requires_grad_(), a.clone().requires_grad_()) for name, (b, a) in start.items()}
    fixed = {name: weights[name] - scaling * b @ a for name, (b, a) in start.items()}
    adapted = lambda: {name: fixed[name] + scaling * b @ a for name, (b, a) in trained.items()}  # noqa: E731
    optimizer = torch.optim.Adam([f for pair in trained.values() for f in pair], lr=lr)
    for step in range(num_steps):
        x, y = data[step % len(data)]
        loss = _loss(functional_call(small, adapted(), (x,)), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if progress is not None:
            progress(step, loss.item())
    with torch.no_grad():
        for name, value in adapted().items():
            weights[name].copy_(value)
    return small.requires_grad_(True)


def sensitivity(network: nn.Module, examples: Iterable[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Sum over examples of |parameter times gradient of the example's loss|, by parameter name."""
    parameters = dict(network.named_parameters())
    total = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for x, y in examples:
        gradients = torch.autograd.grad(_loss(network(x), y), list(parameters.values()), allow_unused=True)
        for (name, p), gradient in zip(parameters.items(), gradients):
            if gradient is not None:
                total[name] += (p * gradient).detach().abs()
    return total


def _extract(network: nn.Module, weights: dict[str, Tensor], examples: list, layers: str, how: str) -> dict[str, Tensor]:
    """For each matrix of the small model the part of the large model's that belongs there."""
    of_large, scores = dict(network.named_parameters()), sensitivity(network, examples)
    pattern = re.compile(rf"(.*\b{re.escape(layers)}\.)(\d+)(\..*)")
    by_layer: dict[int, float] = {}
    for name, score in scores.items():
        if match := pattern.fullmatch(name):
            by_layer[int(match[2])] = by_layer.get(int(match[2]), 0.0) + score.sum().item()
    count = len({match[2] for name in weights if (match := pattern.fullmatch(name))})
    if count > len(by_layer):
        raise ValueError(f"the small model has {count} layers, the large one {len(by_layer)}; it needs no more")
    kept = sorted(sorted(by_layer, key=by_layer.__getitem__, reverse=True)[:count])  # the most sensitive, in their order
    parts = {}
    for name, weight in weights.items():
        match = pattern.fullmatch(name)
        source = f"{match[1]}{kept[int(match[2])]}{match[3]}" if match else name
        if source not in of_large or any(a > b for a, b in zip(weight.shape, of_large[source].shape)):
            found = tuple(of_large[source].shape) if source in of_large else None
            raise ValueError(f"{name} is {tuple(weight.shape)}, the large model's {source} {found}; it must be as large")
        parts[name] = most_sensitive(of_large[source].detach(), scores[source], tuple(weight.shape), how)
    return parts


def most_sensitive(matrix: Tensor, scores: Tensor, shape: tuple[int, int], how: str = "submatrix") -> Tensor:
    """The part of the matrix, of the given shape, where the scores are highest; the first of equals."""
    height, width = shape
    if how == "rows and columns":
        rows = scores.mean(dim=1).topk(height).indices.sort().values
        columns = scores.mean(dim=0).topk(width).indices.sort().values
        return matrix[rows][:, columns]
    table = F.pad(scores.double().cumsum(0).cumsum(1), (1, 0, 1, 0))  # sums of all blocks from the four corners of each
    sums = table[height:, width:] - table[:-height, width:] - table[height:, :-width] + table[:-height, :-width]
    top, left = divmod(int(sums.argmax()), sums.shape[1])
    return matrix[top : top + height, left : left + width]


def factors(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """B = U Sigma and A = V^T of the largest singular values, so that B A is the best approximation of that rank."""
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    return u[:, :rank] * s[:rank], vh[:rank]


def _loss(scores: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(scores.flatten(0, -2), targets.flatten())
