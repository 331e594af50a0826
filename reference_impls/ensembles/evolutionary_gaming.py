r"""PEG and the cross-reference scatter (zhai2023population).

A population of different networks learns features of unlabelled images by turns of selection, reproduction, mutation and learning
from one another. Selection is a cooperative game: each of a few slots in turn takes the network (or none) that makes the value of
the whole set largest, until no slot wants to change. The value needs no labels: the set's joint features are clustered, an
independent reference network is trained a little on the cluster labels, and they are good labels if its features of a cluster
come to lie close together and far from the others: the cross-reference scatter.

Notation: f_i the features of network i, normalised; S the set kept; y the cluster labels of the joint features; g the reference
network; mu_c, mu the mean of its features in cluster c and of all, n_c the size of cluster c.

Departures: mutual learning is by cross-entropy to the cluster labels and to the mean prediction of the other networks' moving
averages, without the triplet loss of re-identification. The reference is a perceptron that starts alike at every evaluation. The
game ends when all slots in a row keep their network (the authors' code: all but one).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

unit = lambda features: F.normalize(features.flatten(1), dim=1)  # noqa: E731


def evolutionary_gaming(
    networks: Sequence[nn.Module],
    inputs: Tensor,
    *,
    num_clusters: int,
    slots: int = 3,
    generations: int = 2,
    clones: int = 1,
    mutation: float = 0.2,
    momentum: float = 0.95,
    reference_steps: int = 40,
    num_steps: int = 60,
    lr: float = 1e-3,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> nn.Module:
    r"""Evolve a population of feature networks without labels and return the best set as one ensemble.

    $$ S^* = \arg\max_{|S| \le m} J(S), \qquad J(S) = \frac{\sum_c n_c \lVert \mu_c - \mu \rVert^2}
    {\sum_c \sum_{x : y(x) = c} \lVert g(x) - \mu_c \rVert^2}, \qquad
    \mathcal{L}_i = \mathrm{CE}(p_i, y) + \alpha_i\, \mathrm{CE}\Big(p_i, \tfrac{1}{|S| - 1} \sum_{j \ne i} \bar p_j\Big) $$

    Args:
        networks: feature networks, inputs (n, ...) to features (n, d_i); architectures may differ.
        inputs: all the unlabelled data, (n, ...).
        num_clusters: number of clusters, between 2 and n.
        slots: m, the largest number of networks kept. Default 3: for toys.
        generations: turns of selection, reproduction, mutation and learning; a last selection follows. Default 2: for toys.
        clones: mutated copies of each network kept. Default 1: for toys; 2 in the authors' code.
        mutation: r; a clone's hyper-parameters are multiplied by numbers from [1 - r, 1 + r]. Default 0.2: the authors' code.
        momentum: of the moving average of each network's parameters, which teaches and is kept. Default 0.95: for toys.
        reference_steps: training steps of the reference network. Default 40: for toys.
        num_steps: steps of mutual learning in each generation. Default 60: for toys.
        lr: first step size (Adam); it mutates, as does the weight alpha_i, which starts at 0.5. Default 1e-3: for toys.
        generator: source of all random numbers. Default None: a generator with seed 0.
        progress: called with the step, counted over all generations, and the mean loss.

    Returns:
        A network from inputs to the normalised features of all networks kept, side by side; `members` are copies.

    Raises:
        ValueError: no networks, a number of clusters or slots that does not fit.

    Example:
        Four points in two tight pairs have scatter 4 * 25 / (4 * 0.01), in two mixed pairs 4 * 0.01 / (4 * 25).

        >>> points = torch.tensor([[-5.1], [-4.9], [4.9], [5.1]])
        >>> [f"{scatter(points, torch.tensor(labels)).item():.4g}" for labels in ([0, 0, 1, 1], [0, 1, 0, 1])]
        ['2500', '0.0004']

    References:
        zhai2023population, the sections on selection, on the cross-reference scatter and on the evolution.
    """
    if not networks or not 2 <= num_clusters <= len(inputs) or slots < 1:
        raise ValueError(f"received {len(networks)} networks, {num_clusters} clusters of {len(inputs)} inputs and {slots} slots")
    generator = generator or torch.Generator().manual_seed(0)
    agents = [Agent(copy.deepcopy(n), copy.deepcopy(n).eval(), lr, 0.5) for n in networks]
    seed = int(torch.randint(2**31, (), generator=generator))
    value = partial(cross_reference_scatter, inputs, num_clusters, reference_steps, seed)
    for generation in range(generations):
        kept = best_response(agents, value, slots, generator)
        agents = kept + [agent.clone(mutation, generator) for agent in kept for _ in range(clones)]
        losses = _learn_mutually(agents, inputs, num_clusters, momentum, num_steps, generator)
        for step, loss in enumerate(losses, start=generation * num_steps):
            if progress is not None:
                progress(step, loss)
    return JointFeatures([agent.average for agent in best_response(agents, value, slots, generator)])


class Agent(NamedTuple):
    """A network, the moving average of its parameters, and its hyper-parameters."""
    network: nn.Module
    average: nn.Module
    lr: float
    soft: float

    def clone(self, r: float, generator: torch.Generator) -> Agent:
        a, b = (1 - r + 2 * r * torch.rand(2, generator=generator)).tolist()
        return Agent(copy.deepcopy(self.network), copy.deepcopy(self.average), self.lr * a, self.soft * b)


class JointFeatures(nn.Module):
    """Normalised features of several networks, side by side."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(copy.deepcopy(network).requires_grad_(False).eval() for network in networks)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.cat([unit(member(inputs)) for member in self.members], dim=1)


def best_response(agents: list[Agent], value: Callable, slots: int, generator: torch.Generator) -> list[Agent]:
    """The set where no slot gains by taking another network, or none: an equilibrium of the game."""
    candidates = [None, *range(len(agents))]
    known = lru_cache(maxsize=None)(lambda kept: value([agents[i].average for i in sorted(kept)]) if kept else -float("inf"))
    worth = lambda choice: known(frozenset(choice) - {None})  # noqa: E731
    shuffled = torch.randperm(len(candidates), generator=generator).tolist()
    choice = ([candidates[i] for i in shuffled] + [None] * slots)[:slots]
    unchanged = slot = 0
    while unchanged < slots:
        options = [c for c in candidates if c is None or c not in choice]
        best = max(([*choice[:slot], c, *choice[slot + 1 :]] for c in options), key=worth)
        unchanged, choice = (0, best) if worth(best) > worth(choice) else (unchanged + 1, choice)
        slot = (slot + 1) % slots
    return [agents[i] for i in choice if i is not None]


def cross_reference_scatter(inputs: Tensor, num_clusters: int, num_steps: int, seed: int, networks: list[nn.Module]) -> float:
    """The value of a set of networks: how well an independent network learns the clusters of their joint features."""
    generator = torch.Generator().manual_seed(seed)  # the same clusters' starts and the same reference at every call
    with torch.no_grad():
        labels = k_means(JointFeatures(networks)(inputs), num_clusters, generator)
    sizes = (inputs[0].numel(), 64, 32, num_clusters)
    draw = lambda n, m: torch.randn(m, n, generator=generator) * (2 / n) ** 0.5  # noqa: E731
    a, b, c = weights = [draw(*pair).to(inputs.device).requires_grad_(True) for pair in zip(sizes, sizes[1:])]
    features = lambda: F.linear(F.linear(inputs.flatten(1), a).relu(), b)  # noqa: E731
    optimizer = torch.optim.Adam(weights, lr=1e-2)
    for _ in range(num_steps):
        loss = F.cross_entropy(F.linear(features().relu(), c), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return scatter(F.normalize(features().detach(), dim=1), labels).item()


def scatter(features: Tensor, labels: Tensor) -> Tensor:
    """Scatter between the clusters over the scatter within them; features (n, d), labels (n,)."""
    clusters = [features[labels == c] for c in labels.unique()]
    between = sum(len(own) * (own.mean(0) - features.mean(0)).square().sum() for own in clusters)
    return between / sum((own - own.mean(0)).square().sum() for own in clusters).clamp_min(1e-12)


def k_means(features: Tensor, count: int, generator: torch.Generator, num_steps: int = 20, restarts: int = 5) -> Tensor:
    """Cluster labels by Lloyd's algorithm, the best of several random starts; an empty cluster keeps its centre."""
    results = []
    for _ in range(restarts):
        centers = features[torch.randperm(len(features), generator=generator)[:count].to(features.device)]
        for _ in range(num_steps):
            distances, labels = torch.cdist(features, centers).min(dim=1)
            members = F.one_hot(labels, count).to(features.dtype).T  # (count, n)
            centers = (members @ features + 1e-6 * centers) / (members.sum(1, keepdim=True) + 1e-6)
        results.append((distances.square().sum().item(), labels))
    return min(results, key=lambda result: result[0])[1]


def _learn_mutually(agents: list[Agent], inputs: Tensor, count: int, momentum: float, steps: int, generator) -> Iterator[float]:
    """Every network learns the clusters of the joint features, and the predictions of the others' moving averages."""
    with torch.no_grad():
        labels = k_means(JointFeatures([a.average for a in agents])(inputs), count, generator)
        means = [F.one_hot(labels, count).float().T @ unit(agent.average(inputs)) for agent in agents]
    heads = [(10 * F.normalize(mean, dim=1)).requires_grad_(True) for mean in means]  # classifiers start at the clusters
    optimizers = [torch.optim.Adam([*a.network.train().parameters(), h], lr=a.lr) for a, h in zip(agents, heads)]
    for _ in range(steps):
        chosen = torch.randint(len(inputs), (64,), generator=generator).to(inputs.device)
        with torch.no_grad():
            taught = [F.linear(unit(a.average(inputs[chosen])), h).softmax(1) for a, h in zip(agents, heads)]
        losses = []
        for i, (agent, head, optimizer) in enumerate(zip(agents, heads, optimizers)):
            log_p = F.linear(unit(agent.network(inputs[chosen])), head).log_softmax(dim=1)
            others = sum((p for j, p in enumerate(taught) if j != i), torch.zeros_like(log_p)) / max(len(agents) - 1, 1)
            loss = F.nll_loss(log_p, labels[chosen]) - agent.soft * (others * log_p).sum(dim=1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                for mean, tensor in zip(agent.average.state_dict().values(), agent.network.state_dict().values()):
                    mean.copy_(mean.lerp(tensor, 1 - momentum) if mean.is_floating_point() else tensor)
            losses.append(loss.item())
        yield sum(losses) / len(losses)
