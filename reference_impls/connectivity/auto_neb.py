r"""AutoNEB, the automated nudged elastic band (draxler2018essentially).

A path between two networks is held as a chain of pivots. Each pivot moves down the gradient of the loss, but only
across the path, so that it cannot slide down to an end; and the pivots are kept at their distances along the path.
That is a nudged elastic band. After some steps the loss is measured between the pivots as well, new pivots are put
where it rises above what the pivots suggest, and the band is relaxed again, with smaller and smaller steps. The
highest loss on the final path bounds the barrier from above.

Notation: p_0 .. p_{N+1} the pivots, p_0 and p_{N+1} the networks, L the loss, tau_i the unit tangent at p_i.

Departures: `loss_fn` may be the loss of the whole training set or draw a minibatch at each call. Steps per cycle are a
toy's; the authors take 1000 or 2000.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reference_impls.core.paths import LossCurve, dress
from reference_impls.core.state_dict import (
    StateDict,
    check_same_structure,
    flatten,
    to_state_dict,
    to_vector,
    unflatten,
)


@dataclass(frozen=True)
class Band:
    """A path through pivots.

    Attributes:
        pivots: the first model, the relaxed pivots, the second model.
        losses: the loss along the path, by position in arc length; every segment has inner points.
        saddle: the highest loss on the path; scalar.
        num_pivots: pivots between the ends, after each cycle; shape (cycles,).
    """

    pivots: tuple[StateDict, ...]
    losses: LossCurve
    saddle: Tensor
    num_pivots: Tensor


def auto_neb(
    model_a: StateDict,
    model_b: StateDict,
    loss_fn: Callable[[StateDict], Tensor],
    *,
    num_pivots: int = 3,
    num_steps: int = 50,
    lr: Sequence[float] = (0.1, 0.1, 0.01, 0.001),
    momentum: float = 0.9,
    num_inserts: int = 2,
    insert_threshold: float = 0.1,
    num_inner: int = 9,
    progress: Callable[[int, float], None] | None = None,
) -> Band:
    r"""Relax a chain of pivots between two models and insert new ones where the loss is high.

    $$
    p_i \leftarrow p_i - \gamma\, \big( \nabla L(p_i) - \langle \nabla L(p_i), \tau_i \rangle\, \tau_i \big), \qquad
    \tau_i \propto \begin{cases} p_{i+1} - p_i & L(p_{i+1}) > L(p_{i-1}) \\ p_i - p_{i-1} & \text{else} \end{cases}
    $$

    Args:
        model_a: $p_0$, stays fixed.
        model_b: $p_{N+1}$, stays fixed.
        loss_fn: $L$, differentiable, state dict to scalar.
        num_pivots: $N$ at the start, evenly spaced on the straight line, >= 1. Default 3: the authors' configuration.
        num_steps: steps in a cycle, >= 0. Default 50: a toy's.
        lr: learning rate $\gamma$ of each cycle. Default (0.1, 0.1, 0.01, 0.001): the authors' sequence, each value
            fewer times.
        momentum: of gradient descent, in [0, 1). Default 0.9: the authors' configuration (SGD with momentum).
        num_inserts: new pivots after each cycle but the last, at most. Default 2: the authors' configuration.
        insert_threshold: a pivot is inserted where the loss exceeds the interpolation between two pivots by more than
            this share of the pivots' range of losses. Default 0.1: the authors' code.
        num_inner: points at which the loss is measured between two pivots. Default 9: the authors' code.
        progress: called with the step and the highest loss of a pivot. Default None.

    Returns:
        A `Band`.

    Raises:
        ValueError: models of different structure, no pivots, no cycles.

    Example:
        A hill of height 1 at x = 0 parts two wells, and the valley floor is bent: the straight line meets a loss of 6
        and the path 1.

        >>> bent = lambda m: (m["x"] ** 2 - 1) ** 2 + 5 * (m["y"] - 1 + m["x"] ** 2) ** 2
        >>> a, b = ({"x": torch.tensor(x), "y": torch.tensor(0.0)} for x in (-1.0, 1.0))
        >>> auto_neb(a, b, bent, lr=(0.02,) * 4).saddle.round(decimals=2)
        tensor(1., dtype=torch.float64)

    References:
        draxler2018essentially, the section on the method.
    """
    check_same_structure(model_a, model_b)
    if num_pivots < 1 or not lr:
        raise ValueError(
            f"received num_pivots={num_pivots} and {len(lr)} learning rates; at least one of each is needed"
        )
    like = to_vector(model_a)
    ends = flatten(like), flatten(to_vector(model_b))
    ts = torch.linspace(0, 1, num_pivots + 2).to(ends[0])[:, None]
    chain = (1 - ts) * ends[0] + ts * ends[1]  # (N + 2, d)
    spacing = torch.full((num_pivots + 1,), 1 / (num_pivots + 1))  # of the segments, relative
    evaluate = lambda point: loss_fn(dress(unflatten(point, like), like=model_a))  # noqa: E731

    counts = []
    for cycle, rate in enumerate(lr):
        velocity = torch.zeros_like(chain)
        for step in range(num_steps):
            chain = _redistribute(chain, spacing)
            losses, gradients = _losses_and_gradients(chain, evaluate)
            velocity = momentum * velocity + _across(chain, losses, gradients)
            chain = chain - rate * velocity
            if progress is not None:
                progress(cycle * num_steps + step, losses.max().item())
        chain = _redistribute(chain, spacing) if num_steps else chain
        counts.append(len(chain) - 2)
        if cycle < len(lr) - 1:
            chain, spacing = _insert(chain, spacing, evaluate, num_inserts, insert_threshold, num_inner)

    dense, positions = _measure(chain, evaluate, num_inner), _positions(chain, num_inner)
    pivots = tuple(to_state_dict(unflatten(point, like), like=model_a) for point in chain)
    return Band(pivots, LossCurve(positions, dense.flatten()[: len(positions)]), dense.max(), torch.tensor(counts))


def _losses_and_gradients(chain: Tensor, evaluate: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    losses, gradients = [], []
    for point in chain:
        leaf = point.detach().clone().requires_grad_()
        loss = evaluate(leaf)
        losses.append(loss.detach().double())
        gradients.append(torch.autograd.grad(loss, leaf)[0])
    return torch.stack(losses), torch.stack(gradients)


def _across(chain: Tensor, losses: Tensor, gradients: Tensor) -> Tensor:
    """The part of the gradient at right angles to the path; zero at the ends."""
    out = torch.zeros_like(chain)
    for i in range(1, len(chain) - 1):
        tangent = chain[i + 1] - chain[i] if losses[i + 1] > losses[i - 1] else chain[i] - chain[i - 1]
        tangent = tangent / tangent.norm().clamp(min=1e-12)
        out[i] = gradients[i] - (gradients[i] @ tangent) * tangent
    return out


def _redistribute(chain: Tensor, spacing: Tensor) -> Tensor:
    """Put the pivots back to their relative distances along the path (a spring of infinite stiffness)."""
    lengths = chain.diff(dim=0).norm(dim=1).double()
    reached = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    wanted = spacing.to(lengths).cumsum(0)[:-1] / spacing.sum() * reached[-1]
    segment = torch.searchsorted(reached, wanted).clamp(1, len(lengths)) - 1
    t = ((wanted - reached[segment]) / lengths[segment].clamp(min=1e-12)).to(chain)[:, None]
    inner = (1 - t) * chain[segment] + t * chain[segment + 1]
    return torch.cat([chain[:1], inner, chain[-1:]])


def _measure(chain: Tensor, evaluate: Callable[[Tensor], Tensor], num_inner: int) -> Tensor:
    """Losses at every pivot and `num_inner` points after it, (N + 2, num_inner + 1); the last row repeats the end."""
    alphas = torch.linspace(0, 1, num_inner + 2)[:-1].to(chain)
    following = torch.cat([chain[1:], chain[-1:]])
    with torch.no_grad():
        rows = [[float(evaluate((1 - a) * p + a * q)) for a in alphas] for p, q in zip(chain[:-1], following[:-1])]
        rows.append([float(evaluate(chain[-1]))] * (num_inner + 1))
    return torch.tensor(rows, dtype=torch.float64)


def _positions(chain: Tensor, num_inner: int) -> Tensor:
    """Positions in [0, 1] along the path of the points of `_measure`, the end once."""
    lengths = chain.diff(dim=0).norm(dim=1).double().cpu().clamp(min=1e-9)
    steps = (lengths / (num_inner + 1)).repeat_interleave(num_inner + 1).cumsum(0)
    return torch.cat([steps.new_zeros(1), steps[:-1] / steps[-1], steps.new_ones(1)])


def _insert(
    chain: Tensor, spacing: Tensor, evaluate: Callable[[Tensor], Tensor], count: int, threshold: float, num_inner: int
) -> tuple[Tensor, Tensor]:
    """Put new pivots into the segments where the loss rises most above the line between their ends."""
    dense = _measure(chain, evaluate, num_inner)  # (N + 2, num_inner + 1)
    alphas = torch.linspace(0, 1, num_inner + 2, dtype=torch.float64)[:-1]
    pivots = dense[:, 0]
    excess = dense[:-1] - (1 - alphas) * pivots[:-1, None] - alphas * pivots[1:, None]
    highest, where = (excess / (pivots.max() - pivots.min() + 1e-12)).max(dim=1)
    chosen = [i for i in highest.argsort(descending=True).tolist()[:count] if highest[i] > threshold]
    for i in sorted(chosen, reverse=True):
        a = float(alphas[where[i]])
        new = (1 - a) * chain[i] + a * chain[i + 1]
        chain = torch.cat([chain[: i + 1], new[None], chain[i + 1 :]])
        spacing = torch.cat([spacing[:i], spacing[i : i + 1] * a, spacing[i : i + 1] * (1 - a), spacing[i + 1 :]])
    return chain, spacing
