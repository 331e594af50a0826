r"""Multi-SLERP.

Spherical interpolation joins two models along the arc between them. For more models, Multi-SLERP takes the weighted mean of
their directions, sets it back to the sphere, and gives it the weighted mean of their lengths. From a base model it does so
with the task vectors.

Notation: x_i a tensor of model i (or of its task vector), u_i = x_i / |x_i| its direction, w_i the weight.

Departures: as published, and in mergekit, the directions are then projected to the tangent space at that mean, interpolated
there and mapped back. The weighted sum of these projections is zero at that very point, so that the step changes nothing,
and it is left out. Where the weighted directions cancel the published code takes the weighted sum of two models and refuses
more; here it is taken for any number.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from reference_impls.core.blocks import inner_products
from reference_impls.core.state_dict import StateDict, check_same_structure, linear_combination, task_vector, to_state_dict
from reference_impls.core.state_dict import to_vector


def multislerp(
    models: Sequence[StateDict],
    *,
    weights: Sequence[float] | None = None,
    base: StateDict | None = None,
    normalize_weights: bool = True,
) -> StateDict:
    r"""Merge models at the normalized mean of their directions, with their mean length.

    $$
    x = \Big(\sum_i w_i \lVert x_i\rVert\Big)\, \frac{\sum_i w_i u_i}{\big\lVert\sum_i w_i u_i\big\rVert}, \qquad
    u_i = \frac{x_i}{\lVert x_i\rVert}
    $$

    Args:
        models: $\theta_1 \dots \theta_n$, n >= 1, of one architecture.
        weights: $w_1 \dots w_n$. Default None: all equal.
        base: origin of the sphere; the task vectors from it are merged and added to it. Default None: the models themselves.
        normalize_weights: divide the weights by their sum. Default True: the published code.

    Returns:
        A new state dict, structured as the first model.

    Raises:
        ValueError: no models, models of another structure, another number of weights, weights to be normalized that
            add up to zero.

    Example:
        Weights 1/4 and 3/4: the mean of the directions is (0.25, 0.75), of length 0.7906; the mean length is
        0.25 * 4 + 0.75 * 8 = 7, and 7 / 0.7906 * (0.25, 0.75) = (2.2136, 6.6408).

        >>> multislerp([{"w": torch.tensor([4.0, 0.0])}, {"w": torch.tensor([0.0, 8.0])}], weights=[1, 3])
        {'w': tensor([2.2136, 6.6408])}

    References:
        C. Goddard, blog post on Multi-SLERP, and mergekit, the method multislerp.
    """
    check_same_structure(*models, *([] if base is None else [base]))
    w = [1.0] * len(models) if weights is None else [float(x) for x in weights]
    if len(w) != len(models):
        raise ValueError(f"received {len(w)} weights for {len(models)} models; one weight per model is needed")
    if normalize_weights or weights is None:
        if sum(w) == 0:
            raise ValueError(f"weights {w} add up to zero and cannot be normalized")
        w = [x / sum(w) for x in w]
    vectors = [to_vector(model) if base is None else task_vector(model, base) for model in models]
    merged = {}
    for key in vectors[0]:
        factors = _mean_factors(inner_products([vector[key] for vector in vectors]), torch.tensor(w, dtype=torch.float64))
        merged |= linear_combination([{key: vector[key]} for vector in vectors], factors.tolist())
    if base is not None:
        merged = linear_combination([to_vector(base), merged], [1.0, 1.0])
    return to_state_dict(merged, like=models[0])


def _mean_factors(inner: Tensor, w: Tensor) -> Tensor:
    """What to multiply each x_i with before they are added up, (n,); `inner` holds <x_i, x_j>."""
    lengths = inner.diagonal().sqrt()
    share = torch.where(lengths > 0, w / lengths, 0)  # sum_i w_i u_i = sum_i share_i x_i
    length_of_mean = (share @ inner @ share).clamp(min=0).sqrt()
    return (w @ lengths) / length_of_mean * share if length_of_mean > 1e-8 else w
