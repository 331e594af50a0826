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

from reference_impls.core.blocks import each, inner_products
from reference_impls.core.state_dict import StateDict, check_same_structure, linear_combination, to_state_dict, to_vector
from reference_impls.core.state_dict import zip_map, zip_rows

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
    if scope in ("row", "column"):
        dim, zip_with = (-1, zip_rows) if scope == "row" else (0, zip_map)
        return to_state_dict(zip_with(lambda a, b: _along(a, b, dim, t, length, dot_threshold), theta_a, theta_b), like=model_a)
    theta = {}
    for keys in [[key] for key in theta_a] if scope == "tensor" else [[*theta_a]]:
        a, b = {key: theta_a[key] for key in keys}, {key: theta_b[key] for key in keys}
        gram = sum(each(lambda *pair: inner_products(pair), a.values(), b.values()))
        weight_a, weight_b = _weights(gram[0, 0], gram[0, 1], gram[1, 1], t, length, dot_threshold)
        theta |= linear_combination([a, b], [float(weight_a), float(weight_b)])
    return to_state_dict(theta, like=model_a)


def _along(a: Tensor, b: Tensor, dim: int, t: float, length: str, dot_threshold: float) -> Tensor:
    """Interpolate the vectors that lie along `dim`."""
    a, b = a.double(), b.double()
    dot = lambda x, y: (x * y).sum(dim=dim, keepdim=True)  # noqa: E731
    weight_a, weight_b = _weights(dot(a, a), dot(a, b), dot(b, b), t, length, dot_threshold)
    return weight_a * a + weight_b * b


def _weights(aa: Tensor, ab: Tensor, bb: Tensor, t: float, length: str, dot_threshold: float) -> tuple[Tensor, Tensor]:
    """The coefficients of a and b, by <a, a>, <a, b> and <b, b>."""
    norm_a, norm_b = aa.sqrt(), bb.sqrt()
    no_arc = (norm_a == 0) | (norm_b == 0)
    cosine = torch.where(no_arc, 1.0, ab / torch.where(no_arc, 1.0, norm_a * norm_b)).clamp(-1, 1)
    omega = cosine.acos()
    straight = no_arc | (cosine.abs() > dot_threshold) | (omega.sin() < SMALLEST_SINE)
    sine = torch.where(straight, 1.0, omega.sin())
    weight_a = torch.where(straight, 1 - t, ((1 - t) * omega).sin() / sine)
    weight_b = torch.where(straight, t, (t * omega).sin() / sine)
    if length == "combined":
        return weight_a, weight_b
    direction_a = torch.where(norm_a == 0, 0, weight_a / torch.where(norm_a == 0, 1, norm_a))
    direction_b = torch.where(norm_b == 0, 0, weight_b / torch.where(norm_b == 0, 1, norm_b))
    norm = (direction_a**2 * aa + 2 * direction_a * direction_b * ab + direction_b**2 * bb).clamp(min=0).sqrt()
    wanted = ((1 - t) * norm_a + t * norm_b) / torch.where(norm == 0, 1, norm)
    return wanted * direction_a, wanted * direction_b
