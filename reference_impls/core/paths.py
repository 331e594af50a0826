r"""Paths between models, and the loss along them.

A path is a map from $t \in [0, 1]$ to a model, $\theta(0) = \theta_A$ and $\theta(1) = \theta_B$. The simplest is the
straight line; alignment, curve finding and every test of linear mode connectivity compare losses along paths by one
number, the loss
barrier: how far the loss rises above the straight line between its values at the ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reference_impls.core.state_dict import (
    StateDict,
    Vector,
    check_same_structure,
    linear_combination,
    tied_to,
    to_state_dict,
    to_vector,
)


@dataclass(frozen=True)
class LossCurve:
    r"""The loss along a path.

    Attributes:
        ts: positions $0 = t_1 < \dots < t_m = 1$; shape (m,).
        losses: $L(\theta(t_i))$; shape (m,).

    Example:
        >>> LossCurve(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([1.0, 4.0, 3.0])).barrier
        tensor(2.)
    """

    ts: Tensor
    losses: Tensor

    @property
    def barrier(self) -> Tensor:
        """The loss barrier, a scalar."""
        return loss_barrier(self.losses, self.ts)


def interpolate(model_a: StateDict, model_b: StateDict, t: float) -> dict[str, Tensor]:
    r"""Return $(1 - t)\,\theta_A + t\,\theta_B$; integer buffers are those of `model_a`.

    Example:
        >>> interpolate({"w": torch.tensor([0.0, 1.0])}, {"w": torch.tensor([4.0, 1.0])}, 0.25)
        {'w': tensor([1., 1.])}
    """
    return convex_combination([model_a, model_b], [1 - t, t])


def convex_combination(models: Sequence[StateDict], weights: Sequence[float]) -> dict[str, Tensor]:
    r"""Return $\sum_i w_i \theta_i$ for weights that sum to 1; integer buffers are those of the first model.

    Example:
        >>> models = [{"w": torch.tensor([v])} for v in (0.0, 3.0, 9.0)]
        >>> convex_combination(models, [0.5, 0, 0.5])
        {'w': tensor([4.5000])}
    """
    check_same_structure(*models)
    if abs(float(sum(weights)) - 1) > 1e-4:
        raise ValueError(f"the weights sum to {float(sum(weights)):g}; they must sum to 1")
    return to_state_dict(linear_combination([to_vector(model) for model in models], list(weights)), like=models[0])


def dress(vector: Vector, like: StateDict) -> dict[str, Tensor]:
    """Return `vector` with the keys, dtypes, ties and integer buffers of `like`; gradients flow back into `vector`.

    What `to_state_dict` is for results, this is for a loss that is to be differentiated.

    Example:
        >>> w = torch.tensor([3.0], requires_grad=True)
        >>> (dress({"w": w}, like={"w": torch.zeros(1), "steps": torch.tensor(1)})["w"] ** 2).sum().backward()
        >>> w.grad
        tensor([6.])
    """
    ties = tied_to(like)
    out: dict[str, Tensor] = {}
    for key, tensor in like.items():
        out[key] = out[ties[key]] if key in ties else vector[key].to(tensor.dtype) if key in vector else tensor
    return out


def evenly_spaced(num_points: int) -> Tensor:
    """Return `num_points` >= 2 positions from 0 to 1, in float64.

    Example:
        >>> evenly_spaced(3)
        tensor([0.0000, 0.5000, 1.0000], dtype=torch.float64)
    """
    if num_points < 2:
        raise ValueError(f"num_points is {num_points}; a curve needs at least its 2 ends")
    return torch.linspace(0, 1, num_points, dtype=torch.float64)


def loss_along(
    path: Callable[[float], StateDict], loss_fn: Callable[[StateDict], Tensor], num_points: int
) -> LossCurve:
    r"""Evaluate $L(\theta(t))$ at evenly spaced `t`, without gradients, in float64.

    Example:
        >>> square = lambda sd: sd["w"].square().sum()
        >>> line = lambda t: interpolate({"w": torch.tensor([-1.0])}, {"w": torch.tensor([1.0])}, t)
        >>> loss_along(line, square, 3).losses
        tensor([1., 0., 1.], dtype=torch.float64)
    """
    ts = evenly_spaced(num_points)
    with torch.no_grad():
        losses = [float(loss_fn(path(t))) for t in ts.tolist()]
    return LossCurve(ts, torch.tensor(losses, dtype=torch.float64))


def loss_barrier(losses: Tensor, ts: Tensor) -> Tensor:
    r"""Return the loss barrier: the highest rise of the loss above the straight line between its values at the ends.

    $$ B = \max_t \Big[ L(\theta(t)) - (1 - t)\, L(\theta(0)) - t\, L(\theta(1)) \Big] $$

    It is never negative, since the ends themselves rise by nothing (the definition of entezari2022role, up to that
    maximum).

    Args:
        losses: $L(\theta(t_i))$; shape (m,), m >= 2.
        ts: positions, increasing from 0 to 1; shape (m,).

    Example:
        The straight line from 1 to 3 has 2 in the middle.

        >>> loss_barrier(torch.tensor([1.0, 4.0, 3.0]), torch.tensor([0.0, 0.5, 1.0]))
        tensor(2.)
    """
    if losses.ndim != 1 or losses.shape != ts.shape or len(ts) < 2:
        raise ValueError(
            f"losses have shape {tuple(losses.shape)} and ts {tuple(ts.shape)}; both need one shape (m,), m >= 2"
        )
    if ts[0] != 0 or ts[-1] != 1 or not (ts.diff() > 0).all():
        raise ValueError(f"ts run from {float(ts[0]):g} to {float(ts[-1]):g}; they must increase from 0 to 1")
    line = (1 - ts) * losses[0] + ts * losses[-1]
    return (losses - line).max().clamp(min=0)
