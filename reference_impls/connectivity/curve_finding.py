r"""Curve finding, polygonal chain and quadratic Bezier curve (garipov2018loss).

Two networks trained independently are separated by high loss on the straight line between them, and yet a simple curve
of low loss joins them. The curve's ends are the two networks and stay fixed; its bend is trained: each step draws a
point uniformly on the curve, and moves the bend down the gradient of the loss at that point.

Notation: w_1 and w_2 the two networks, phi_theta(t) the curve with trainable bends theta, L the loss, t the position
in [0, 1].

Departures: `loss_fn` may be the loss of the whole training set or draw a minibatch at each call; weight decay, if
wanted, belongs in it. The statistics of batch normalisation are interpolated along the curve; the paper computes them
anew for every point.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import comb
from typing import Literal

import torch
from torch import Tensor

from reference_impls.core.paths import LossCurve, convex_combination, dress, interpolate, loss_along
from reference_impls.core.state_dict import StateDict, linear_combination, to_state_dict, to_vector


@dataclass(frozen=True)
class Curve:
    """A curve between two models.

    Attributes:
        kind: "bezier" or "chain".
        points: the first model, the trained bends, the second model.
        losses: the loss along the curve.
    """

    kind: str
    points: tuple[StateDict, ...]
    losses: LossCurve

    def at(self, t: float) -> dict[str, Tensor]:
        """Return the model at position `t` in [0, 1]."""
        return convex_combination(self.points, _coefficients(t, len(self.points), self.kind))


def curve_finding(
    model_a: StateDict,
    model_b: StateDict,
    loss_fn: Callable[[StateDict], Tensor],
    *,
    kind: Literal["bezier", "chain"] = "bezier",
    num_bends: int = 1,
    num_steps: int = 500,
    lr: float = 0.03,
    momentum: float = 0.9,
    num_points: int = 61,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> Curve:
    r"""Train the bend of a curve between two models to a low loss everywhere on the curve.

    $$
    \min_\theta\ \mathbb{E}_{t \sim U(0, 1)}\, L(\phi_\theta(t)), \qquad
    \phi_\theta(t) = (1 - t)^2\, w_1 + 2t(1 - t)\, \theta + t^2\, w_2
    \quad\text{or}\quad
    \phi_\theta(t) = \begin{cases} 2\,(t\,\theta + (\tfrac12 - t)\, w_1) & t \le \tfrac12 \\
    2\,((t - \tfrac12)\, w_2 + (1 - t)\, \theta) & t > \tfrac12 \end{cases}
    $$

    Args:
        model_a: $w_1$, the end at t = 0.
        model_b: $w_2$, the end at t = 1.
        loss_fn: $L$, differentiable, state dict to scalar.
        kind: "bezier" for the Bezier curve, "chain" for the polygonal chain. Default "bezier"; the paper shows both.
        num_bends: trained points between the ends, >= 1. Default 1: the paper's curves (one bend, quadratic Bezier).
        num_steps: steps of gradient descent, >= 0; 0 leaves the straight line. Default 500: a toy's length.
        lr: learning rate, > 0. Default 0.03: a toy's; the paper gives one for each network.
        momentum: of gradient descent, in [0, 1). Default 0.9: the authors' code.
        num_points: evenly spaced positions at which the final losses are taken, ends included. Default 61: the
            authors' code.
        generator: source of the positions t. Default None: a fresh generator with seed 0.
        progress: called with the step and its loss. Default None.

    Returns:
        A `Curve`: `at(t)` is the model at t, `points` holds the bends, `losses` the loss along it.

    Raises:
        ValueError: models of different structure, an unknown kind, no bend, a learning rate of 0 or less.

    Example:
        All minima of this loss lie on the circle of radius 1. The straight line cuts across it.

        >>> circle = lambda model: (model["w"].square().sum() - 1).square()
        >>> a, b = {"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([0.0, 1.0])}
        >>> curve_finding(a, b, circle, num_steps=0).losses.barrier
        tensor(0.2500, dtype=torch.float64)
        >>> bool(curve_finding(a, b, circle).losses.barrier < 0.01)
        True

    References:
        garipov2018loss, the section on finding paths between modes.
    """
    if kind not in ("bezier", "chain"):
        raise ValueError(f"kind is {kind!r}; it is one of bezier, chain")
    if num_bends < 1 or lr <= 0:
        raise ValueError(
            f"received num_bends={num_bends} and lr={lr}; at least one bend and a positive rate are needed"
        )
    generator = torch.Generator().manual_seed(0) if generator is None else generator

    # the bends start evenly spaced on the straight line
    starts = [interpolate(model_a, model_b, (i + 1) / (num_bends + 1)) for i in range(num_bends)]
    bends = [{k: v.clone().requires_grad_() for k, v in to_vector(start).items()} for start in starts]
    ends = to_vector(model_a), to_vector(model_b)
    optimizer = torch.optim.SGD([leaf for bend in bends for leaf in bend.values()], lr=lr, momentum=momentum)
    for step in range(num_steps):
        t = float(torch.rand((), generator=generator))
        theta = linear_combination([ends[0], *bends, ends[1]], _coefficients(t, num_bends + 2, kind))
        loss = loss_fn(dress(theta, like=model_a))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if progress is not None:
            progress(step, loss.item())

    points = tuple(to_state_dict(point, like=model_a) for point in (ends[0], *bends, ends[1]))
    curve = lambda t: convex_combination(points, _coefficients(t, num_bends + 2, kind))  # noqa: E731
    return Curve(kind, points, loss_along(curve, loss_fn, num_points))


def _coefficients(t: float, count: int, kind: str) -> list[float]:
    """Weights of the points at position t: Bernstein polynomials, or the two neighbours on the chain."""
    last = count - 1
    if kind == "bezier":
        return [comb(last, i) * t**i * (1 - t) ** (last - i) for i in range(count)]
    return [max(0.0, 1 - abs(t * last - i)) for i in range(count)]
