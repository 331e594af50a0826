r"""SLERP.

The straight line between two vectors passes closer to the origin than either end: averages of weights shrink. Spherical
interpolation walks along the arc between the two directions instead, at constant angular speed, so that between vectors
of equal length the length is kept.

Notation: a, b a tensor of theta_A and the same tensor of theta_B, Omega the angle between them, t the position on the
arc.

Departures: Shoemake's formula is for unit vectors; as in every merging library its two coefficients are applied to the
vectors as they are, and a zero vector or exactly opposite vectors, which span no single arc, are interpolated on the
straight line.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from reference_impls.core.state_dict import StateDict, check_same_structure, flatten, to_state_dict, to_vector
from reference_impls.core.state_dict import unflatten, zip_map

SMALLEST_SINE = 1e-6  # below it the two formulas agree to 1e-12, or the vectors are opposite


def slerp(
    model_a: StateDict,
    model_b: StateDict,
    *,
    t: float = 0.5,
    scope: Literal["tensor", "model", "row", "column"] = "tensor",
    length: Literal["combined", "interpolated"] = "combined",
    dot_threshold: float = 1.0,
) -> StateDict:
    r"""Interpolate two models along the arc between their weight vectors.

    $$
    \theta = \frac{\sin((1-t)\,\Omega)}{\sin\Omega}\,a + \frac{\sin(t\,\Omega)}{\sin\Omega}\,b, \qquad
    \cos\Omega = \frac{\langle a, b\rangle}{\lVert a\rVert\,\lVert b\rVert}
    $$

    Args:
        model_a: $\theta_A$, the result at t = 0.
        model_b: $\theta_B$, the result at t = 1.
        t: position on the arc, in [0, 1]. Default 0.5: the middle.
        scope: what counts as one vector: each "tensor", the whole "model", each "row" (last dimension) or each
            "column" (first dimension) of a tensor. Default "tensor": mergekit, FusionBench.
        length: "combined" applies the coefficients to the vectors as they are; "interpolated" gives the result the
            length (1 - t)|a| + t|b| (sd-mecha). Default "combined": mergekit, FusionBench.
        dot_threshold: above this |cos Omega| the straight line is taken instead, in [0, 1]; libraries use 0.9995,
            an angle of 1.8 degrees. Default 1.0: never.

    Returns:
        A new state dict, structured as `model_a`.

    Raises:
        ValueError: models of another structure, t or dot_threshold outside [0, 1], an unknown option.

    Example:
        The middle of the arc between two orthogonal unit vectors has coordinates sin(45 deg) / sin(90 deg) = 0.7071,
        where the straight line has 0.5.

        >>> slerp({"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([0.0, 1.0])})
        {'w': tensor([0.7071, 0.7071])}

    References:
        K. Shoemake, Animating rotation with quaternion curves, SIGGRAPH 1985 (the formula, for unit quaternions).
    """
    for name, value in (("t", t), ("dot_threshold", dot_threshold)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is {value}; it is in [0, 1]")
    if scope not in ("tensor", "model", "row", "column"):
        raise ValueError(f"scope is {scope!r}; it is one of tensor, model, row, column")
    if length not in ("combined", "interpolated"):
        raise ValueError(f"length is {length!r}; it is one of combined, interpolated")
    check_same_structure(model_a, model_b)

    theta_a, theta_b = to_vector(model_a), to_vector(model_b)
    dim = {"tensor": None, "model": None, "row": -1, "column": 0}[scope]
    if scope == "model":
        theta = unflatten(_slerp(flatten(theta_a), flatten(theta_b), t, dim, length, dot_threshold), like=theta_a)
    else:
        theta = zip_map(lambda a, b: _slerp(a, b, t, dim, length, dot_threshold), theta_a, theta_b)
    return to_state_dict(theta, like=model_a)


def _slerp(a: Tensor, b: Tensor, t: float, dim: int | None, length: str, dot_threshold: float) -> Tensor:
    """Interpolate the vectors that lie along `dim` (None: the whole tensor)."""
    a, b = a.double(), b.double()
    norm_a, norm_b = _norm(a, dim), _norm(b, dim)
    u, v = _divide(a, norm_a), _divide(b, norm_b)
    omega = 2 * torch.atan2(_norm(u - v, dim), _norm(u + v, dim))  # exact where acos of a cosine near 1 is not
    straight = (norm_a == 0) | (norm_b == 0) | (omega.cos().abs() > dot_threshold) | (omega.sin() < SMALLEST_SINE)
    sine = torch.where(straight, 1.0, omega.sin())
    weight_a = torch.where(straight, 1 - t, ((1 - t) * omega).sin() / sine)
    weight_b = torch.where(straight, t, (t * omega).sin() / sine)
    if length == "combined":
        return weight_a * a + weight_b * b
    direction = weight_a * u + weight_b * v
    return _divide(direction, _norm(direction, dim)) * ((1 - t) * norm_a + t * norm_b)


def _norm(x: Tensor, dim: int | None) -> Tensor:
    return torch.linalg.vector_norm(x, dim=dim, keepdim=True)


def _divide(x: Tensor, norm: Tensor) -> Tensor:
    """x / norm, and zero where the norm is zero."""
    return x / torch.where(norm == 0, 1.0, norm)
