r"""Amalgamation of heterogeneous graph networks (jing2021amalgamating).

Graph networks that label the nodes of different graphs, with different features and for different tasks, are
amalgamated into one. The student's first layer is slimmable: for a graph with d features it uses its first d input
channels, so that one network reads the graphs of every teacher. It learns the teachers' answers and, beside them, which
neighbours they listen to: how much the scores of a node's labels change with each edge around it, a map of attributions
over the graph's edges, is to be the same in student and teacher.

Notation: x (N, d) the node features, E the edges (2, M) from source to target; u_e = 1 a factor on the message of edge
e in the last layer; y_m = labels of teacher m; A_m its attributions (M), A^s_m the student's for the same task.

Departures: none known in the loss, which is the authors' code's; whether the paper's soft targets are thresholded as
there is not confirmed (see `targets`). Graph attention is the only kind of layer here, and nodes with several labels
the only kind of task.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Graph = tuple[Tensor, Tensor]  # node features (N, d), edges (2, M)


def gnn_amalgamation(
    networks: Sequence[nn.Module],
    student: nn.Module,
    graphs: Sequence[Sequence[Graph]],
    *,
    attribution_weight: float = 0.1,
    targets: Literal["soft", "hard"] = "hard",
    num_steps: int = 200,
    lr: float = 5e-3,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> nn.Module:
    r"""Train one graph network to do the tasks of all teachers, listening to the same neighbours.

    $$
    \mathcal{L} = \sum_m \mathcal{L}_{soft}^m + \lambda \sum_m \frac{1}{M} \big\| \bar A^s_m - \bar A_m \big\|^2, \qquad
    A_m = \frac{\partial}{\partial u} \sum_{i} \sum_{c:\, y_{m,ic} = 1} z_{m,ic}, \qquad
    \bar A_e = \frac{A_e - \mu_{t(e)}}{\sqrt{\sigma^2_{t(e)} + 10^{-5}}}
    $$

    with mean and variance over the edges that end in the same node t(e).

    Args:
        networks: the teachers; called with (x, edges, u), they give the scores (N, labels) of their own labels. u (M,
            1) multiplies the last layer's messages, as in `GraphAttentionNetwork`.
        student: a network of the same kind that takes the features of every teacher's graphs (as the slimmable
            `GraphAttentionNetwork` does) and has the labels of all teachers, in their order.
        graphs: for each teacher its graphs, unlabelled; graphs that teachers share may be listed under each.
        attribution_weight: $\lambda \geq 0$. Default 0.1: the authors' code.
        targets: what the binary cross-entropies of $\mathcal{L}_{soft}$ take from the teachers: "hard" the labels with
            scores above 0 (the authors' code), "soft" the sigmoids of the scores. Default "hard": the authors' code.
        num_steps: optimiser steps (Adam), each on one graph of every teacher. Default 200: for toys.
        lr: step size. Default 5e-3: for toys; 1e-4 in the authors' code.
        generator: the order of the graphs. Default None: a generator with seed 0.
        progress: called with step and loss.

    Returns:
        A trained copy of `student`, in evaluation mode.

    Raises:
        ValueError: no teachers, another number of lists of graphs, another number of labels, a negative weight, an
            unknown option.

    Example:
        Three edges end in node 0 and one in node 1. Attributions 1, 2 and 3 have mean 2 and variance 2/3; one edge
        alone says nothing.

        >>> edges = torch.tensor([[0, 1, 2, 1], [0, 0, 0, 1]])
        >>> normalised(torch.tensor([1.0, 2.0, 3.0, 5.0]), edges).round(decimals=3)
        tensor([-1.2250,  0.0000,  1.2250,  0.0000])

    References:
        jing2021amalgamating, the attributions, their normalisation and the slimmable layer.
    """
    if not networks or len(networks) != len(graphs) or not all(graphs):
        raise ValueError(f"received {len(networks)} teachers and {len(graphs)} lists of graphs; each needs one")
    if attribution_weight < 0 or targets not in ("soft", "hard"):
        raise ValueError(f"attribution_weight is {attribution_weight}, >= 0, and targets {targets!r}, one of soft, hard")
    teachers = [copy.deepcopy(network).eval() for network in networks]
    student = copy.deepcopy(student).eval()
    told = [[_answers(teacher, graph) for graph in own] for teacher, own in zip(teachers, graphs)]  # scores and attributions
    ends = torch.tensor([0] + [own[0][0].shape[1] for own in told]).cumsum(0).tolist()
    with torch.no_grad():
        own_labels = student(*graphs[0][0]).shape[1]
    if own_labels != ends[-1]:
        raise ValueError(f"the teachers have {ends[-1]} labels together and the student {own_labels}; it needs all of theirs")

    student.train()
    optimizer = torch.optim.Adam(student.parameters(), lr=lr)
    generator = generator or torch.Generator().manual_seed(0)
    for step in range(num_steps):
        loss = torch.zeros((), device=graphs[0][0][0].device)
        for m, own in enumerate(graphs):
            g = int(torch.randint(len(own), (), generator=generator))
            (x, edges), (scores, attributions) = own[g], told[m][g]
            unary = torch.ones(edges.shape[1], 1, device=x.device, requires_grad=True)
            z = student(x, edges, unary)[:, ends[m] : ends[m + 1]]
            soft = (scores > 0).to(z.dtype) if targets == "hard" else scores.sigmoid()
            loss = loss + F.binary_cross_entropy_with_logits(z, soft)
            if attribution_weight > 0:
                mine = attribution_map(z, scores > 0, unary, create_graph=True)
                loss = loss + attribution_weight * F.mse_loss(normalised(mine, edges), normalised(attributions, edges))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if progress is not None:
            progress(step, loss.item())
    return student.eval()


def attribution_map(scores: Tensor, labels: Tensor, unary: Tensor, create_graph: bool = False) -> Tensor:
    """How much the scores of the nodes' labels change with the factor on each edge, (M,)."""
    return torch.autograd.grad((scores * labels).sum(), unary, create_graph=create_graph)[0][:, 0]


def normalised(attributions: Tensor, edges: Tensor) -> Tensor:
    """The attributions less their mean, over their standard deviation, among the edges that end in the same node."""
    into, nodes = edges[1], int(edges.max()) + 1
    count = _sum(torch.ones_like(attributions), into, nodes).clamp_min(1)
    centred = attributions - (_sum(attributions, into, nodes) / count)[into]
    variance = _sum(centred.square(), into, nodes) / count
    return centred / (variance + 1e-5).sqrt()[into]


class GraphAttentionNetwork(nn.Module):
    """Graph attention layers, ELU between; the first uses as many input channels as there are features.

    Args:
        widths: of the features (the largest that may come), of each head of the hidden layers, and of the labels.
        num_heads: of every layer; side by side in the hidden layers, averaged in the last.
        generator: draws the initial parameters.
    """

    def __init__(self, widths: Sequence[int], num_heads: int, generator: torch.Generator) -> None:
        super().__init__()
        draw = lambda *shape: nn.Parameter(torch.randn(shape, generator=generator) / shape[-2] ** 0.5)  # noqa: E731
        ins, outs = [widths[0], *(num_heads * w for w in widths[1:-1])], widths[1:]
        self.weights = nn.ParameterList(draw(num_heads, a, b) for a, b in zip(ins, outs))
        self.residuals = nn.ParameterList(draw(num_heads, a, b) for a, b in zip(ins[1:], outs[1:]))
        self.sources = nn.ParameterList(draw(num_heads, b, 1) for b in outs)  # attention: a part for each end of an edge
        self.targets = nn.ParameterList(draw(num_heads, b, 1) for b in outs)

    def forward(self, x: Tensor, edges: Tensor, unary: Tensor | None = None) -> Tensor:
        source, target = edges
        for l, weight in enumerate(self.weights):
            last = l == len(self.weights) - 1
            h = x @ weight[:, : x.shape[1]]  # (heads, N, width); slimmable: fewer features use the first weights only
            e = F.leaky_relu((h @ self.sources[l])[:, source, 0] + (h @ self.targets[l])[:, target, 0], 0.2)
            e = (e - e.max().detach()).exp()
            attention = e / torch.zeros_like(h[:, :, 0]).index_add(1, target, e)[:, target]  # (heads, M)
            messages = h[:, source] * attention[:, :, None] * (unary if last and unary is not None else 1)
            out = torch.zeros_like(h).index_add(1, target, messages)
            out = out + x @ self.residuals[l - 1] if l > 0 else out
            x = out.mean(dim=0) if last else F.elu(out.transpose(0, 1).flatten(1))
        return x


def _answers(teacher: nn.Module, graph: Graph) -> tuple[Tensor, Tensor]:
    """A teacher's scores of a graph and the attributions of its own labels."""
    x, edges = graph
    unary = torch.ones(edges.shape[1], 1, device=x.device, requires_grad=True)
    scores = teacher(x, edges, unary)
    return scores.detach(), attribution_map(scores, scores > 0, unary).detach()


def _sum(values: Tensor, into: Tensor, count: int) -> Tensor:
    """Sums of the values that belong to each node."""
    return values.new_zeros(count).index_add(0, into, values)
