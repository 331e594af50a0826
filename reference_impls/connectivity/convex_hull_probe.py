r"""Convex hull of endpoints (yunis2022convexity).

Runs that share the early part of their training end in one connected region, and not only the lines between their ends
have low loss: so do random points in the whole convex hull of many ends, a set of many dimensions. The probe draws
such points and reports their losses; and it asks whether the examples that all the ends get right are the ones that
the points inside get right too.

Notation: theta_1..n the ends, w a point of the simplex (weights >= 0 that sum to 1), L the loss.

Departures: the weights are uniform on the simplex; which distribution the paper draws them from was not confirmed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reference_impls.core.paths import convex_combination
from reference_impls.core.state_dict import StateDict


@dataclass(frozen=True)
class ConvexHull:
    """The loss inside the hull of n models, at s random points.

    Attributes:
        weights: of the points; shape (s, n).
        losses: at the points; shape (s,).
        end_losses: of the models; shape (n,).
        center_loss: of the mean of all models; scalar.
        barrier: the largest rise of a point's loss above the same combination of the end losses, at least 0; scalar.
        shared_correct: share of the examples that all the models get right; scalar, or None without `correct_fn`.
        kept_correct: of those, the share that a point gets right too, mean over the points; scalar, or None.
    """

    weights: Tensor
    losses: Tensor
    end_losses: Tensor
    center_loss: Tensor
    barrier: Tensor
    shared_correct: Tensor | None
    kept_correct: Tensor | None


def convex_hull_probe(
    models: Sequence[StateDict],
    loss_fn: Callable[[StateDict], Tensor],
    *,
    num_points: int = 50,
    correct_fn: Callable[[StateDict], Tensor] | None = None,
    generator: torch.Generator | None = None,
) -> ConvexHull:
    r"""Evaluate the loss at random points of the convex hull of several models.

    $$
    \theta_w = \sum_i w_i \theta_i, \quad w \sim U\big(\{w \ge 0, \textstyle\sum_i w_i = 1\}\big), \qquad
    B = \max_w \Big[ L(\theta_w) - \sum_i w_i L(\theta_i) \Big]
    $$

    Args:
        models: $\theta_1 \dots \theta_n$, the ends of runs that share the start of their training, n >= 2.
        loss_fn: $L$, state dict to scalar.
        num_points: random points, >= 1. Default 50: a choice here.
        correct_fn: state dict to a bool tensor (examples,): which predictions are right. Default None: not measured.
        generator: source of the weights. Default None: a fresh generator with seed 0.

    Returns:
        A `ConvexHull`.

    Raises:
        ValueError: fewer than two models, no points, models of different structure.

    Example:
        Two wells at -1 and 1: every point between has a positive loss, the middle has 1.

        >>> wells = lambda model: (model["w"] ** 2 - 1).square().sum()
        >>> hull = convex_hull_probe([{"w": torch.tensor([-1.0])}, {"w": torch.tensor([1.0])}], wells)
        >>> hull.center_loss, bool(hull.barrier > 0.9)
        (tensor(1., dtype=torch.float64), True)

    References:
        yunis2022convexity.
    """
    if len(models) < 2 or num_points < 1:
        raise ValueError(
            f"received {len(models)} models and num_points={num_points}; two models and one point are needed"
        )
    generator = torch.Generator().manual_seed(0) if generator is None else generator

    exponential = -torch.rand(num_points, len(models), generator=generator, dtype=torch.float64).clamp(min=1e-300).log()
    weights = exponential / exponential.sum(dim=1, keepdim=True)  # uniform on the simplex
    points = [convex_combination(models, row) for row in weights.tolist()]
    center = convex_combination(models, [1 / len(models)] * len(models))
    with torch.no_grad():
        evaluate = lambda many: torch.tensor([float(loss_fn(m)) for m in many], dtype=torch.float64)  # noqa: E731
        losses, end_losses, center_loss = evaluate(points), evaluate(models), evaluate([center])[0]
        shared_correct = kept_correct = None
        if correct_fn is not None:
            shared = torch.stack([correct_fn(model) for model in models]).all(dim=0)  # (examples,)
            kept = torch.stack([correct_fn(model) for model in points])[:, shared]
            shared_correct, kept_correct = shared.double().mean(), kept.double().mean().nan_to_num(nan=1.0)
    barrier = (losses - weights @ end_losses).max().clamp(min=0)
    return ConvexHull(weights, losses, end_losses, center_loss, barrier, shared_correct, kept_correct)
