r"""Karcher mean (wang2026fisherrao).

The arithmetic mean of vectors that point in different directions is shorter than they are, and with many models the features
of the merged network shrink. The Karcher mean averages the directions on the sphere instead: it is the point whose summed
squared angles to all of them are smallest. It is found by walking from the normalized mean, again and again, along the mean
of the arcs that lead to the models; the result gets the mean length of the models.

Notation: x_i a tensor of model i, u_i = x_i / |x_i| its direction, alpha_i the weight, m the mean direction, theta_i the
angle between m and u_i.

Departures: the mean lies in the span of the directions, so that all steps are taken on its coefficients and need only the
inner products of the models, an n by n matrix in double precision. Where the weighted directions cancel there is no mean
direction; the plain mean is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from reference_impls.core.blocks import each, inner_products
from reference_impls.core.state_dict import StateDict, check_same_structure, linear_combination, to_state_dict, to_vector

SMALLEST_SINE = 1e-9  # below it theta / sin(theta) is 1, or the direction is opposite and no single arc leads to it


def karcher_mean(
    models: Sequence[StateDict],
    *,
    weights: Sequence[float] | None = None,
    scope: Literal["tensor", "model"] = "tensor",
    max_iter: int = 10,
    tol: float = 1e-5,
) -> StateDict:
    r"""Merge models at the Karcher mean of their directions.

    $$
    m^\star = \arg\min_{\lVert m\rVert = 1} \sum_i \alpha_i\, \theta(m, u_i)^2, \qquad
    v = \sum_i \alpha_i \frac{\theta_i}{\sin\theta_i} (u_i - \cos\theta_i\, m), \qquad
    m \leftarrow \cos\lVert v\rVert\, m + \sin\lVert v\rVert\, \frac{v}{\lVert v\rVert}, \qquad
    x = \Big(\sum_i \alpha_i \lVert x_i\rVert\Big)\, m
    $$

    Args:
        models: $\theta_1 \dots \theta_n$, n >= 1, of one architecture.
        weights: $\alpha_1 \dots \alpha_n$, not negative; only their ratios count. Default None: all equal.
        scope: what is one vector: each "tensor" or the whole "model". Default "tensor": the authors' code, in mergekit.
        max_iter: number of steps at most. Default 10: the authors' code.
        tol: the walk ends where the step |v| is smaller, in radians. Default 1e-5: the authors' code.

    Returns:
        A new state dict, structured as the first model.

    Raises:
        ValueError: no models, models of another structure, another number of weights, negative or all zero weights,
            max_iter < 0, an unknown scope.

    Example:
        Two directions with an angle of 90 degrees: the mean direction lies at 45 degrees, the mean length is (3 + 5) / 2 = 4,
        and 4 * 0.7071 = 2.8284.

        >>> karcher_mean([{"w": torch.tensor([3.0, 0.0])}, {"w": torch.tensor([0.0, 5.0])}])
        {'w': tensor([2.8284, 2.8284])}

    References:
        wang2026fisherrao, the fixed-point iteration on the sphere.
    """
    check_same_structure(*models)
    alphas = [1.0] * len(models) if weights is None else [float(w) for w in weights]
    if len(alphas) != len(models):
        raise ValueError(f"received {len(alphas)} weights for {len(models)} models; one weight per model is needed")
    if min(alphas) < 0 or sum(alphas) <= 0:
        raise ValueError(f"weights are {alphas}; none may be negative and one must be positive")
    if max_iter < 0:
        raise ValueError(f"max_iter is {max_iter}; it is at least 0")
    if scope not in ("tensor", "model"):
        raise ValueError(f"scope is {scope!r}; it is one of tensor, model")

    thetas = [to_vector(model) for model in models]
    alpha = torch.tensor(alphas, dtype=torch.float64) / sum(alphas)
    merged = {}
    groups = [[key] for key in thetas[0]] if scope == "tensor" else [list(thetas[0])]
    for keys in groups:
        parts = [{key: theta[key] for key in keys} for theta in thetas]
        gram = sum(each(lambda *tensors: inner_products(tensors), *(part.values() for part in parts)))
        factors = _mean_factors(gram, alpha, max_iter, tol).tolist() if keys else []
        merged |= linear_combination(parts, factors) if keys else {}
    return to_state_dict(merged, like=models[0])


def _mean_factors(inner: Tensor, alpha: Tensor, max_iter: int, tol: float) -> Tensor:
    """What to multiply each x_i with before they are added up, (n,)."""
    lengths = inner.diagonal().sqrt()
    inverse = torch.where(lengths > 0, 1 / lengths, 0)  # a zero tensor has no direction
    gram = inverse[:, None] * inner * inverse  # <u_i, u_j>
    norm = lambda c: (c @ gram @ c).clamp(min=0).sqrt()  # of sum_i c_i u_i  # noqa: E731
    weight = torch.where(lengths > 0, alpha, 0)
    weight = weight / weight.sum().clamp(min=1e-300)
    if norm(weight) < 1e-12:
        return alpha
    m = weight / norm(weight)  # m = sum_i m_i u_i
    for _ in range(max_iter):
        cosine = (gram @ m).clamp(-1, 1)
        theta, sine = cosine.acos(), (1 - cosine**2).sqrt()
        arc = weight * torch.where(sine > SMALLEST_SINE, theta / sine, 1)
        v = arc - (arc @ cosine) * m  # sum_i arc_i (u_i - cosine_i m)
        step = norm(v)
        if step < tol:
            break
        m = step.cos() * m + step.sin() * v / step
        m = m / norm(m)  # against rounding
    return (alpha @ lengths) * m * inverse
