r"""MLI test and Gauss length (lucas2021analyzing).

On the straight line from a network's initialisation to its trained weights the loss usually falls monotonically,
although training did not follow that line. This tests the property, says by how much it is violated, and measures two
things that go with a violation: how far the weights moved, and how much the path that the outputs take meanwhile
turns. The turning is the Gauss length, the length of the path that the unit tangent draws on the sphere: zero for a
straight path, large for a winding one.

Notation: theta_0 the initialisation, theta_T the trained weights, alpha the position on the line, z_i(alpha) the
logits of example i, v_i the unit tangent of their path.

Departures: tangents are differences between neighbouring points, and the angles between neighbouring tangents are
added up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from reference_impls.core.paths import LossCurve, interpolate, loss_along
from reference_impls.core.state_dict import StateDict, norm, task_vector, to_vector


@dataclass(frozen=True)
class MonotonicInterpolation:
    """What happens on the line from the initialisation to the trained weights.

    Attributes:
        curve: the loss along the line.
        largest_increase: the largest rise of the loss from one position to a later one, >= 0; scalar.
        monotonic: whether that rise is at most `tol`; scalar, bool.
        gauss_length: of the logit paths, in radians, mean over the examples; scalar.
        distance: Euclidean distance between the two ends; scalar.
        normalized_distance: that distance over the norm of the initialisation; scalar.
    """

    curve: LossCurve
    largest_increase: Tensor
    monotonic: Tensor
    gauss_length: Tensor
    distance: Tensor
    normalized_distance: Tensor


def monotonic_linear_interpolation(
    model_a: StateDict,
    model_b: StateDict,
    loss_fn: Callable[[StateDict], Tensor],
    logits_fn: Callable[[StateDict], Tensor],
    *,
    num_points: int = 50,
    tol: float = 0.0,
) -> MonotonicInterpolation:
    r"""Test whether the loss falls monotonically from the initialisation to the trained weights, and measure why not.

    $$
    \min\Delta = \max_{\alpha_1 < \alpha_2} \big( L(\theta_{\alpha_2}) - L(\theta_{\alpha_1}) \big), \qquad
    \mathrm{length}_i = \int_0^1 \lVert \partial_\alpha v_i(\alpha) \rVert\, d\alpha, \quad
    v_i = \frac{\partial_\alpha z_i}{\lVert \partial_\alpha z_i \rVert}
    $$

    Args:
        model_a: $\theta_0$, the initialisation.
        model_b: $\theta_T$, the trained weights.
        loss_fn: $L$, state dict to scalar; the paper's is the training loss.
        logits_fn: $z$, state dict to logits; shape (examples, classes).
        num_points: evenly spaced values of $\alpha$, ends included, at least 3. Default 50: a choice here.
        tol: largest rise that still counts as monotonic, >= 0. Default 0: the definition of the property.

    Returns:
        A `MonotonicInterpolation`.

    Raises:
        ValueError: models of different structure, fewer than 3 points, logits that are no matrix.

    Example:
        The logits of one example go half round a circle. Eleven points have ten chords and nine turns of 18 degrees.

        >>> a, b = {"w": torch.zeros(1, dtype=torch.float64)}, {"w": torch.tensor([torch.pi], dtype=torch.float64)}
        >>> logits = lambda model: torch.stack([model["w"].cos(), model["w"].sin()], dim=1)
        >>> result = monotonic_linear_interpolation(a, b, lambda model: model["w"].cos().sum(), logits, num_points=11)
        >>> result.gauss_length.rad2deg(), result.monotonic
        (tensor(162., dtype=torch.float64), tensor(True))

    References:
        lucas2021analyzing.
    """
    if num_points < 3:
        raise ValueError(f"num_points is {num_points}; a path needs at least 3 points to turn")
    line = lambda t: interpolate(model_a, model_b, t)  # noqa: E731
    curve = loss_along(line, loss_fn, num_points)
    rise = (curve.losses - curve.losses.cummin(dim=0).values).max()

    with torch.no_grad():
        logits = torch.stack([logits_fn(line(t)).double() for t in curve.ts.tolist()])  # (m, examples, classes)
    if logits.ndim != 3:
        raise ValueError(f"logits_fn returned shape {tuple(logits.shape[1:])}; (examples, classes) is needed")
    moved = norm(task_vector(model_b, model_a))
    return MonotonicInterpolation(
        curve=curve,
        largest_increase=rise,
        monotonic=rise <= tol,
        gauss_length=_turning(logits).mean(),
        distance=moved,
        normalized_distance=moved / norm(to_vector(model_a)).clamp(min=1e-12),
    )


def _turning(paths: Tensor) -> Tensor:
    """Sum of the angles between neighbouring chords, (m, examples, classes) -> (examples,)."""
    chords = paths.diff(dim=0)
    lengths = chords.norm(dim=2, keepdim=True)
    tangents = torch.where(lengths > 0, chords / lengths.clamp(min=1e-300), 0)
    halves = tangents.diff(dim=0).norm(dim=2) / 2  # two unit vectors differ by 2 sin(angle / 2)
    standing = (lengths[1:, :, 0] == 0) | (lengths[:-1, :, 0] == 0)  # a path that stands still does not turn
    return torch.where(standing, 0, 2 * halves.clamp(max=1).asin()).sum(dim=0)
