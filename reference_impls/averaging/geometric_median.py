r"""Geometric median (pillutla2022rfa).

One bad model spoils an average, because the average minimises squared distances and gives far points the most say. The
geometric median minimises the distances themselves: it stays near the majority however far a minority lies. It is found by
averaging again and again, each model weighted by the inverse of its distance from the last average (Weiszfeld's algorithm).

Notation: w_i the weights of model i as one vector, alpha_i its share, z the median, beta_i the weight in the next average,
nu the smallest distance counted.

Departures: every average lies in the affine span of the models, so that the steps are taken on its coefficients and need
only the inner products of the models about one point, an n by n matrix in double precision. The point is their entrywise
median, so that the distances within a majority survive however far the others lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from reference_impls.core.blocks import Streamed, each, entrywise, inner_products
from reference_impls.core.state_dict import StateDict, check_same_structure, linear_combination, to_state_dict, to_vector


def geometric_median(
    models: Sequence[StateDict],
    *,
    weights: Sequence[float] | None = None,
    scope: Literal["model", "tensor"] = "model",
    max_iter: int = 100,
    tol: float = 1e-10,
    eps: float = 1e-6,
) -> StateDict:
    r"""Merge models at the point with the smallest summed distance to them.

    $$
    z^\star = \arg\min_z \sum_i \alpha_i \lVert z - w_i\rVert, \qquad
    z \leftarrow \frac{\sum_i \beta_i w_i}{\sum_i \beta_i}, \qquad \beta_i = \frac{\alpha_i}{\max(\nu, \lVert z - w_i\rVert)}
    $$

    Args:
        models: $w_1 \dots w_n$, n >= 1, of one architecture.
        weights: $\alpha_1 \dots \alpha_n$, not negative; only their ratios count. Default None: all equal.
        scope: what is one vector: the whole "model" (the paper) or each "tensor" (sd-mecha).
            Default "model": the paper.
        max_iter: number of averages at most; 0 is the plain average. Default 100: sd-mecha. The paper does with a few.
        tol: the steps end where the summed distance falls by a smaller fraction. Default 1e-10: a choice here.
        eps: $\nu$, the smallest distance counted, > 0. Default 1e-6: sd-mecha.

    Returns:
        A new state dict, structured as the first model.

    Raises:
        ValueError: no models, models of another structure, another number of weights, negative or all zero weights,
            max_iter < 0, eps not positive, an unknown scope.

    Example:
        On a line it is the median: 2 of 1, 2 and 30, whose mean is 11.

        >>> merged = geometric_median([{"w": torch.tensor([x])} for x in (1.0, 2.0, 30.0)])
        >>> merged["w"].round(decimals=3)
        tensor([2.])

    References:
        pillutla2022rfa, the smoothed Weiszfeld algorithm.
    """
    check_same_structure(*models)
    shares = [1.0] * len(models) if weights is None else [float(w) for w in weights]
    if len(shares) != len(models):
        raise ValueError(f"received {len(shares)} weights for {len(models)} models; one weight per model is needed")
    if min(shares) < 0 or sum(shares) <= 0:
        raise ValueError(f"weights are {shares}; none may be negative and one must be positive")
    if max_iter < 0 or eps <= 0:
        raise ValueError(f"max_iter is {max_iter} and eps {eps}; max_iter is at least 0 and eps positive")
    if scope not in ("model", "tensor"):
        raise ValueError(f"scope is {scope!r}; it is one of model, tensor")

    vectors = [to_vector(model) for model in models]
    alpha = torch.tensor(shares, dtype=torch.float64) / sum(shares)
    merged = {}
    groups = [[key] for key in vectors[0]] if scope == "tensor" else [list(vectors[0])]
    for keys in filter(None, groups):
        parts = [{key: vector[key] for key in keys} for vector in vectors]
        gram = sum(each(_centred_inner_products, *(part.values() for part in parts)))
        factors = _weiszfeld(gram, alpha, max_iter, tol, eps).tolist()
        merged |= linear_combination(parts, factors)
    return to_state_dict(merged, like=models[0])


def _centred_inner_products(*tensors: Tensor | Streamed) -> Tensor:
    """<w_i - m, w_j - m>, (n, n), in double precision, with the entrywise median m."""
    middle = entrywise(lambda *x: torch.stack(x).median(dim=0).values.double(), *tensors)
    return inner_products([entrywise(torch.sub, tensor, middle) for tensor in tensors])


def _weiszfeld(gram: Tensor, alpha: Tensor, max_iter: int, tol: float, eps: float) -> Tensor:
    """The coefficients c of the median z = sum_i c_i w_i, (n,); they add up to 1."""

    def distances(c: Tensor) -> Tensor:  # |z - w_i|, (n,)
        return (c @ gram @ c - 2 * (gram @ c) + gram.diagonal()).clamp(min=0).sqrt()

    c = alpha
    total = alpha @ distances(c)
    for _ in range(max_iter):
        beta = alpha / distances(c).clamp(min=eps)
        c = beta / beta.sum()
        before, total = total, alpha @ distances(c)
        if before - total <= tol * before:
            break
    return c
