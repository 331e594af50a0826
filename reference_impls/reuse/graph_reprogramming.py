r"""Deep graph reprogramming: GARE and ReAgg (jing2023deep).

A trained graph neural network serves new graphs and tasks with all its parameters frozen. What is trained lies outside of it:
values that pad node features which are too short (Meta-FeatPadding), a tiny graph of extra nodes that is attached to every input
(Meta-GraPadding), or, for one given graph, which of its edges to leave out (Edge-Slimming). And in place of the aggregation the
network was trained with, each layer may choose another one for the task (the Reprogrammable-Aggregator), which changes its
behaviour without a parameter.

Notation: X the node features, A the adjacency matrix, delta the padding, y the labels; W_l, U_l the frozen parameters of layer l,
agg the aggregation over neighbours, pi_l its trainable preferences.

Departures: the paper gives no algorithm for how many edges go; here the edge whose removal promises the largest fall of the loss,
by its gradient, is removed as long as the loss falls. The meta graph's nodes are joined to all nodes. Unless said otherwise a
target label stands for the source labels most often given to its nodes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

AGGREGATORS = ("mean", "sum", "max", "min")


def graph_reprogramming(
    network: GraphNetwork,
    features: Tensor,
    adjacency: Tensor,
    targets: Tensor,
    *,
    program: Literal["features", "graph", "edges"] = "features",
    reaggregate: bool = False,
    groups: Sequence[Sequence[int]] | None = None,
    meta_nodes: int = 2,
    max_removed: int = 50,
    num_steps: int = 200,
    lr: float = 0.05,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> nn.Module:
    r"""Reprogram a frozen graph neural network for node classification on another graph.

    $$ \min_{\delta}\ \mathrm{CE}\big(f([X \,\|\, \delta], A), y\big), \qquad
    \min_{E' \subset E}\ \mathrm{CE}\big(f(X, E'), y\big), \qquad
    h_l = W_l h_{l-1} + U_l \sum_a g_a\, \mathrm{agg}_a(h_{l-1}),\ \ g = \mathrm{Gumbel\text{-}softmax}(\pi_l) $$

    Args:
        network: f, a `GraphNetwork` with source labels.
        features: X of the target graph, (n, d), d at most the network's input width.
        adjacency: A, (n, n), zeros and ones, symmetric.
        targets: y, (n,), from 0; -1 for nodes without a label.
        program: "features" pads each node with the same trained values (Meta-FeatPadding), "graph" also attaches trained nodes
            (Meta-GraPadding), "edges" also leaves out edges (Edge-Slimming). Default "features": the least change.
        reaggregate: True lets every layer choose its aggregation (ReAgg). Default False: the network's own.
        groups: the source labels that stand for each class, equally many. Default None: those given most often to its nodes.
        meta_nodes: nodes of the meta graph. Default 2: for toys.
        max_removed: most edges that "edges" removes. Default 50: for toys.
        num_steps: optimiser steps (Adam) of the padding and the preferences. Default 200: for toys.
        lr: step size. Default 0.05: for toys.
        generator: draws the Gumbel noise. Default None: a generator with seed 0.
        progress: called with step and loss.

    Returns:
        A network from (features, adjacency) to log-probabilities (n, classes), in evaluation mode, with a frozen copy inside.

    Raises:
        ValueError: no labels, features too wide, fewer source labels than classes, an unknown program.

    Example:
        A node of value 1 between nodes of values 4 and 6: what the aggregators tell each of them.

        >>> path = torch.tensor([[0.0, 1, 1], [1, 0, 0], [1, 0, 0]])
        >>> [aggregate(torch.tensor([[1.0], [4.0], [6.0]]), path, name).flatten().tolist() for name in ("mean", "max")]
        [[5.0, 1.0, 1.0], [6.0, 1.0, 1.0]]

    References:
        jing2023deep, the sections on data reprogramming (MetaFP, EdgSlim, MetaGP) and on model reprogramming (ReAgg).
    """
    known, classes = targets >= 0, int(targets.max()) + 1
    width, source = network.first.in_features, network.last.out_features
    if not known.any() or features.shape[1] > width or classes > source:
        need = f"the network takes {width} features and has {source} labels"
        raise ValueError(f"received {int(known.sum())} labels of {classes} classes and {features.shape[1]} features; {need}")
    if program not in ("features", "graph", "edges"):
        raise ValueError(f"program is {program!r}; it is one of features, graph, edges")
    generator = generator or torch.Generator().manual_seed(0)
    model = ReprogrammedGraph(network, features.shape[1], meta_nodes * (program == "graph"), reaggregate).to(features.device)
    frequent = _frequent(model.logits(features, adjacency)[known], targets[known], classes)
    model.register_buffer("groups", frequent if groups is None else torch.tensor(groups, device=features.device))

    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=lr)
    for step in range(num_steps if any(p.numel() for p in trained) else 0):
        loss = F.nll_loss(model(features, adjacency, generator if reaggregate else None)[known], targets[known])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if progress is not None:
            progress(step, loss.item())
    if program == "edges":
        model.register_buffer("kept", _slim(model, features, adjacency, targets, max_removed))
    return model.eval()


@torch.no_grad()
def _frequent(logits: Tensor, targets: Tensor, classes: int) -> Tensor:
    """For each class the source labels that have the largest mean probability on its nodes, none twice, (classes, size)."""
    shares = torch.stack([logits[targets == c].softmax(dim=1).mean(0) for c in range(classes)]).nan_to_num()
    groups: list[list[int]] = [[] for _ in range(classes)]
    for place in shares.flatten().sort(descending=True, stable=True).indices.tolist():
        c, s = divmod(place, shares.shape[1])
        if len(groups[c]) < shares.shape[1] // classes and all(s not in group for group in groups):
            groups[c].append(s)
    return torch.tensor(groups, device=logits.device)


def _slim(model: ReprogrammedGraph, features: Tensor, adjacency: Tensor, targets: Tensor, max_removed: int) -> Tensor:
    """Edge-Slimming: leave out one edge after another while the loss falls; returns the mask of what stays."""
    known, mask = targets >= 0, torch.ones_like(adjacency)
    loss_of = lambda mask: F.nll_loss(model(features, adjacency * mask)[known], targets[known])  # noqa: E731
    for _ in range(max_removed):
        trial = mask.clone().requires_grad_(True)
        loss = loss_of(trial)
        (slope,) = torch.autograd.grad(loss, trial)  # of an edge: how fast the loss grows with it
        slope = (slope + slope.T).masked_fill(adjacency * mask == 0, -torch.inf)
        a, b = divmod(int(slope.argmax()), len(mask))
        shorter = mask.clone()
        shorter[a, b] = shorter[b, a] = 0
        if slope[a, b] <= 0 or loss_of(shorter).item() >= loss.item():
            break
        mask = shorter
    return mask


class GraphNetwork(nn.Module):
    """A graph neural network: each layer adds a linear map of the node and one of its aggregated neighbours."""

    def __init__(self, inputs: int, width: int, classes: int, aggregator: str = "mean") -> None:
        super().__init__()
        self.first, self.first_neighbors = nn.Linear(inputs, width), nn.Linear(inputs, width, bias=False)
        self.second, self.second_neighbors = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.last, self.aggregator = nn.Linear(width, classes), aggregator

    def forward(self, features: Tensor, adjacency: Tensor, choices: list[Tensor] | None = None) -> Tensor:
        h = features
        for l, (own, neighbors) in enumerate([(self.first, self.first_neighbors), (self.second, self.second_neighbors)]):
            if choices is None:
                pooled = aggregate(h, adjacency, self.aggregator)
            else:
                pooled = sum(g * aggregate(h, adjacency, name) for g, name in zip(choices[l], AGGREGATORS))
            h = (own(h) + neighbors(pooled)).relu()
        return self.last(h)


def aggregate(h: Tensor, adjacency: Tensor, name: str) -> Tensor:
    """Mean, sum, largest or smallest value over neighbours, (n, d); zero for a node without any."""
    if name in ("mean", "sum"):
        total = adjacency @ h
        return total / adjacency.sum(1, keepdim=True).clamp_min(1) if name == "mean" else total
    sign = 1 if name == "max" else -1
    values = (sign * h).unsqueeze(0).masked_fill((adjacency == 0).unsqueeze(2), -torch.inf).amax(dim=1)
    return sign * values.masked_fill(values.isinf(), 0)


class ReprogrammedGraph(nn.Module):
    """Padding, meta graph, edge mask and aggregators around a frozen graph neural network."""

    def __init__(self, network: GraphNetwork, width: int, meta_nodes: int, reaggregate: bool) -> None:
        super().__init__()
        self.source = copy.deepcopy(network).requires_grad_(False).eval()
        self.padding = nn.Parameter(torch.zeros(network.first.in_features - width))
        self.meta = nn.Parameter(torch.zeros(meta_nodes, network.first.in_features))
        preference = torch.tensor([float(name == network.aggregator) for name in AGGREGATORS])
        self.preferences = nn.Parameter(preference.repeat(2, 1)) if reaggregate else None
        self.register_buffer("kept", None)

    def logits(self, features: Tensor, adjacency: Tensor, generator: torch.Generator | None = None) -> Tensor:
        count, extra = len(features), len(self.meta)
        x = torch.cat([features, self.padding.expand(count, -1)], dim=1)
        a = F.pad(adjacency if self.kept is None else adjacency * self.kept, (0, extra, 0, extra), value=1.0)
        return self.source(torch.cat([x, self.meta]), a, None if self.preferences is None else self._choices(generator))[:count]

    def forward(self, features: Tensor, adjacency: Tensor, generator: torch.Generator | None = None) -> Tensor:
        shares = self.logits(features, adjacency, generator).softmax(dim=1)[:, self.groups].mean(dim=2).clamp_min(1e-9)
        return (shares / shares.sum(dim=1, keepdim=True)).log()

    def _choices(self, generator: torch.Generator | None) -> Tensor:
        """One aggregator a layer, as a one-hot row; in training by the Gumbel trick, with the gradient of the softmax."""
        scores = self.preferences
        if generator is not None:
            noise = torch.rand(scores.shape, generator=generator).clamp(1e-9, 1 - 1e-7).to(scores.device)
            scores = scores - (-noise.log()).log()
        soft = scores.softmax(dim=1)
        hard = F.one_hot(scores.argmax(dim=1), len(AGGREGATORS)).to(soft.dtype)
        return hard + soft - soft.detach()
