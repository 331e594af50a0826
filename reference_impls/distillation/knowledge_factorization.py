r"""Knowledge factorization (yang2022factorizing).

A network of several tasks is taken apart into one network of common knowledge and a small one for each task. The answer
to a task comes from the sum of the common features and the task's own. So that the parts hold what their names say, the
common features are to share as much information as possible with the input, and a task's features as little as possible
beyond what its answers need: the former is a contrast of matching with other inputs, the latter noise with a price on
every distinction. Any tasks' parts can then be put together, without training, to a network of just these tasks.

Notation: f_T the teacher's features before its head; z the common features and t_j those of task j; q_j = N(mu_j,
sigma_j^2) the distribution that t_j is drawn from; h_j the head of task j, r_j an auxiliary head that sees only t_j;
p_j the teacher's probabilities.

Departures: where there are no labels, the teacher's probabilities stand for them; the information between z and the
input is that between z and the teacher's last features alone (the authors' code takes those of several stages); every
task has a head of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def knowledge_factorization(
    network: nn.Sequential,
    common: nn.Module,
    specific: Sequence[nn.Module],
    batches: Iterable[Tensor | tuple[Tensor, ...]],
    *,
    tasks: Sequence[Sequence[int]] | None = None,
    infomax_weight: float = 1.0,
    bottleneck_weight: float = 1e-3,
    task_weight: float = 1.0,
    kd_weight: float = 0.1,
    temperature: float = 10.0,
    marginal: Literal["pairs", "matrix"] = "pairs",
    num_steps: int = 300,
    lr: float = 3e-3,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> FactorNetworks:
    r"""Factorize a network of several tasks into common and task-specific networks.

    $$
    \mathcal{L} = \sum_j \mathrm{CE}\big(p_j, h_j(z + t_j)\big)
    + \lambda_{kt} T^2\, \mathrm{KL}\big(p_j^{1/T} \| h_j(z + t_j)^{1/T}\big)
    + \lambda_t \mathrm{CE}\big(p_j, r_j(t_j)\big) + \beta\, \mathrm{KL}\big(q_j \| \mathcal{N}(0, 1)\big) - \alpha\,
    I(f_T; z)
    $$

    $$
    I(f_T; z) \geq \mathbb{E}_{i}\, s(f_T(x_i), z(x_i)) - \log \mathbb{E}_{i \neq l}\, e^{s(f_T(x_i), z(x_l))},
    \qquad s(f, z) = \cos\big(g(f), z\big)
    $$

    with a small network g, learned along. The third and fourth term bound the information bottleneck
    $I(t_j; y_j) - \beta I(t_j; x)$ from below.

    Args:
        network: the teacher, a `Sequential` whose last stage is its head; the features before it are (n, units).
        common: the common-knowledge network, inputs to features (n, d).
        specific: one network for each task, inputs to (n, 2 d): the means and the logarithms of the variances of its
            features.
        batches: inputs x, or tuples (x, labels), labels (n, tasks), which then stand in the cross-entropies.
        tasks: for each task the numbers of its scores in the teacher's output. Default None: all scores, cut into equal
            parts.
        infomax_weight: $\alpha \geq 0$. Default 1: the authors' code.
        bottleneck_weight: $\beta \geq 0$. Default 1e-3: the authors' code.
        task_weight: $\lambda_t \geq 0$. Default 1: the authors' code.
        kd_weight: $\lambda_{kt} \geq 0$. Default 0.1: the authors' code.
        temperature: T > 0. Default 10: the authors' code.
        marginal: "pairs" takes the means over the n matching and the n (n - 1) other pairs; "matrix" takes both over
            all n^2 entries of the matrix, zero where they do not belong (the authors' code). Default "pairs": the
            estimator itself.
        num_steps: optimiser steps (Adam). Default 300: for toys.
        lr: step size. Default 3e-3: for toys.
        generator: of the new heads and of the noise in t_j. Default None: a generator with seed 0.
        progress: called with step and loss.

    Returns:
        The factor networks, in evaluation mode: `out(x)` gives the scores of all tasks side by side, `out(x, [2])`
        those of one.

    Raises:
        ValueError: no batches or tasks, another number of specific networks, a negative weight, an unknown option.

    Example:
        Two matching pairs of cosine 1, two others of cosine 0: 1 - log(1) is the largest that two inputs allow, 1.

        >>> information(torch.eye(2), torch.eye(2)).item()
        1.0

    References:
        yang2022factorizing, the sections on structural factorization and on the InfoMax bottleneck.
    """
    data = [(b, None) if isinstance(b, Tensor) else (b[0], b[1] if len(b) > 1 else None) for b in batches]
    if not data or not specific:
        raise ValueError(f"received {len(data)} batches and {len(specific)} specific networks; one of each is needed")
    if min(infomax_weight, bottleneck_weight, task_weight, kd_weight) < 0 or marginal not in ("pairs", "matrix"):
        raise ValueError(f"weights must not be negative, and marginal is one of pairs, matrix; received {marginal!r}")
    teacher = copy.deepcopy(network).eval()
    with torch.no_grad():  # the teacher never changes: computed once
        features = [teacher[:-1](x) for x, _ in data]
        scores = [teacher[-1](f) for f in features]
        width = copy.deepcopy(common).eval()(data[0][0]).shape[1]
    if tasks is None:
        tasks = [part.tolist() for part in torch.arange(scores[0].shape[1]).chunk(len(specific))]
    if len(tasks) != len(specific):
        raise ValueError(f"received {len(specific)} specific networks for {len(tasks)} tasks; one for each is needed")

    generator = generator or torch.Generator().manual_seed(0)
    device = data[0][0].device
    student = FactorNetworks(common, specific, [_linear(width, len(t), generator) for t in tasks]).to(device).train()
    readers = nn.ModuleList(_linear(width, len(t), generator) for t in tasks).to(device)  # r_j
    critic = nn.Sequential(_linear(features[0].shape[1], width, generator), nn.ReLU(), _linear(width, width, generator))
    critic.to(device)
    optimizer = torch.optim.Adam([*student.parameters(), *readers.parameters(), *critic.parameters()], lr=lr)
    for step in range(num_steps):
        (x, labels), f_t, target = (part[step % len(data)] for part in (data, features, scores))
        z = student.common(x)
        loss = -infomax_weight * information(critic(f_t), z, marginal)
        for j, task in enumerate(tasks):
            mu, log_var = student.specific[j](x).chunk(2, dim=1)
            noise = torch.randn(mu.shape, generator=generator).to(device)
            t_j = mu + (0.5 * log_var).exp() * noise
            answer, told = student.heads[j](z + t_j), target[:, list(task)]
            y = told.softmax(dim=1) if labels is None else labels[:, j]
            loss = loss + F.cross_entropy(answer, y) + task_weight * F.cross_entropy(readers[j](t_j), y)
            soft = F.kl_div((answer / temperature).log_softmax(1), (told / temperature).softmax(1), reduction="batchmean")
            loss = loss + kd_weight * temperature**2 * soft + bottleneck_weight * bottleneck(mu, log_var)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if progress is not None:
            progress(step, loss.item())
    return student.eval()


class FactorNetworks(nn.Module):
    """One common network, and for each task a network and a head; any tasks work without the others' parts."""

    def __init__(self, common: nn.Module, specific: Iterable[nn.Module], heads: Iterable[nn.Module]) -> None:
        super().__init__()
        self.common = copy.deepcopy(common)
        self.specific = nn.ModuleList(copy.deepcopy(network) for network in specific)
        self.heads = nn.ModuleList(heads)

    def forward(self, x: Tensor, tasks: Sequence[int] | None = None) -> Tensor:
        """Scores of the tasks, side by side; task-specific features are at their means."""
        z = self.common(x)
        tasks = range(len(self.heads)) if tasks is None else tasks
        return torch.cat([self.heads[j](z + self.specific[j](x).chunk(2, dim=1)[0]) for j in tasks], dim=1)

    def assemble(self, tasks: Sequence[int]) -> FactorNetworks:
        """A network of some of the tasks, in this order."""
        return FactorNetworks(self.common, [self.specific[j] for j in tasks], copy.deepcopy([self.heads[j] for j in tasks]))


def information(a: Tensor, b: Tensor, marginal: str = "pairs") -> Tensor:
    """The Donsker-Varadhan lower bound of the mutual information of two batches of features, by cosines."""
    s = F.normalize(a) @ F.normalize(b).T
    n = len(s)
    joint = torch.eye(n, dtype=s.dtype, device=s.device)
    if marginal == "matrix":  # a zero on the diagonal counts as exp(0)
        return (s * joint).mean() - (s * (1 - joint)).exp().mean().log()
    return s.diagonal().mean() - ((s.exp() * (1 - joint)).sum() / max(n * (n - 1), 1)).clamp_min(1e-12).log()


def bottleneck(mu: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(mu, sigma^2) || N(0, 1)), summed over features and averaged over inputs: an upper bound of I(t; x)."""
    return 0.5 * (mu.square() + log_var.exp() - 1 - log_var).sum(dim=1).mean()


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer drawn from the generator, without bias at the start."""
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
    nn.init.normal_(layer.weight, std=inputs**-0.5, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer
