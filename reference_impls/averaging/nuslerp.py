r"""NuSLERP.

Spherical interpolation between two models, with two additions: weights for the models in place of a position on the arc, and
an optional base model, from which the task vectors are interpolated instead of the weights. Task vectors of sibling models
point in very different directions where the weights themselves hardly do, so that there the arc differs from the straight
line.

Notation: a, b a tensor of the two models (or of their task vectors), Omega the angle between them, w_a and w_b the weights,
t the position on the arc.

Departures: none from mergekit, where it was introduced, but for a zero vector, which spans no arc and is interpolated on the
straight line (see `slerp`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from reference_impls.averaging.slerp import slerp
from reference_impls.core.state_dict import StateDict, check_same_structure, linear_combination, task_vector, to_state_dict
from reference_impls.core.state_dict import to_vector


def nuslerp(
    model_a: StateDict,
    model_b: StateDict,
    *,
    weights: Sequence[float] = (0.5, 0.5),
    base: StateDict | None = None,
    scope: Literal["tensor", "row", "column", "model"] = "tensor",
) -> StateDict:
    r"""Interpolate two models, or their task vectors, along the arc between them.

    $$
    \theta = \theta_0 + \frac{\sin((1-t)\,\Omega)}{\sin\Omega}\,a + \frac{\sin(t\,\Omega)}{\sin\Omega}\,b, \qquad
    t = \frac{w_b}{w_a + w_b}
    $$

    with $a = \theta_A - \theta_0$ and $b = \theta_B - \theta_0$, or $\theta_0 = 0$ where there is no base.

    Args:
        model_a: $\theta_A$.
        model_b: $\theta_B$.
        weights: $w_a, w_b$, not negative; only their ratio counts. Default (0.5, 0.5): the middle.
        base: $\theta_0$. Default None: the weights themselves are interpolated.
        scope: what is one vector: each "tensor", each "row" (last dimension) or "column" (first dimension) of a tensor, or
            the whole "model". Default "tensor": mergekit.

    Returns:
        A new state dict, structured as `model_a`.

    Raises:
        ValueError: models of another structure, weights that are negative, all zero or not two, an unknown scope.

    Example:
        From the base (1, 0) the task vectors are (2, 0) and (0, 2), at 90 degrees; the middle of their arc is 2 * 0.7071 in
        both entries.

        >>> import torch
        >>> a, b = {"w": torch.tensor([3.0, 0.0])}, {"w": torch.tensor([1.0, 2.0])}
        >>> nuslerp(a, b, base={"w": torch.tensor([1.0, 0.0])})
        {'w': tensor([2.4142, 1.4142])}

    References:
        mergekit, the method nuslerp; K. Shoemake, Animating rotation with quaternion curves, SIGGRAPH 1985 (the formula).
    """
    if len(weights) != 2 or min(weights) < 0 or sum(weights) <= 0:
        raise ValueError(f"weights are {list(weights)}; two are needed, none negative and one positive")
    check_same_structure(model_a, model_b, *([] if base is None else [base]))
    t = weights[1] / (weights[0] + weights[1])
    if base is None:
        return slerp(model_a, model_b, t=t, scope=scope)
    arc = dict(slerp(task_vector(model_a, base), task_vector(model_b, base), t=t, scope=scope))
    return to_state_dict(linear_combination([to_vector(base), arc], [1.0, 1.0]), like=model_a)
