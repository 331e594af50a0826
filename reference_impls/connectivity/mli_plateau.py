r"""Plateau length of the interpolation from initial to final weights (wang2023plateau).

On the line from the initialisation to the trained weights the loss of a deep network often stays flat for long before
it falls. The reason is in the biases: on the line the signal through r layers grows like the r-th power of the
position, but the last bias grows linearly, so that at first the class with the largest bias wins for all inputs. If
the biases move as slowly as the signal, or are left out, the plateau is shorter. This measures the three plateaus and
the gap between the largest last bias and the others.

Notation: theta_0 and theta_T the initial and final weights, alpha the position, b^h the bias of layer h of r.

Departures: the paper reads the plateau from plots and bounds it in theory; here it ends where the loss has covered the
share `tol` of its way. Leaving out the last bias sets it to zero in the trained network; the paper also trains
networks without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reference_impls.core.paths import LossCurve, interpolate, loss_along
from reference_impls.core.state_dict import StateDict, to_vector


@dataclass(frozen=True)
class Plateau:
    """The loss from the initial to the final weights along three paths, and how long it stays flat on each.

    Attributes:
        linear: weights and biases move linearly.
        homogeneous: the bias of layer h moves with alpha^h.
        unbiased: linear, with a last bias of zero.
        lengths: of the three plateaus, in that order, in [0, 1]; shape (3,).
        bias_gap: largest final last bias minus the mean of the others; scalar.
    """

    linear: LossCurve
    homogeneous: LossCurve
    unbiased: LossCurve
    lengths: Tensor
    bias_gap: Tensor


def mli_plateau(
    model_a: StateDict,
    model_b: StateDict,
    loss_fn: Callable[[StateDict], Tensor],
    *,
    biases: Sequence[str] | None = None,
    num_points: int = 51,
    tol: float = 0.1,
) -> Plateau:
    r"""Measure the plateau of the loss between initial and final weights, and what the biases have to do with it.

    $$
    W(\alpha) = (1 - \alpha)\, W_0 + \alpha\, W_T, \qquad
    b^h(\alpha) = (1 - \alpha)\, b_0^h + \alpha\, b_T^h \quad\text{or}\quad
    (1 - \alpha^h)\, b_0^h + \alpha^h\, b_T^h, \qquad
    \mathrm{length} = \min\{\alpha : L(0) - L(\alpha) \ge \mathrm{tol}\, (L(0) - L(1))\}
    $$

    Args:
        model_a: $\theta_0$, the initial weights.
        model_b: $\theta_T$, the final weights.
        loss_fn: $L$, state dict to scalar: a loss or an error.
        biases: names of the biases $b^1 \dots b^r$, from input to output. Default None: all names that end in "bias".
        num_points: evenly spaced values of $\alpha$, ends included. Default 51: a choice here.
        tol: share of the way from the initial to the final loss that ends the plateau, in (0, 1). Default 0.1: a
            choice here.

    Returns:
        A `Plateau`.

    Raises:
        ValueError: models of different structure, no biases or one that does not exist, tol outside (0, 1).

    Example:
        Loss 1 - b of the second bias, initially 0: b is alpha or alpha^2. A tenth of the way is reached at 0.1
        and, since 0.32^2 is the first square above it, at 0.32.

        >>> a = {"u.bias": torch.zeros(1), "v.bias": torch.zeros(1)}
        >>> b = {"u.bias": torch.ones(1), "v.bias": torch.ones(1)}
        >>> mli_plateau(a, b, lambda model: 1 - model["v.bias"].sum()).lengths.tolist()[:2]
        [0.1, 0.32]

    References:
        wang2023plateau.
    """
    names = [key for key in to_vector(model_b) if key.endswith("bias")] if biases is None else list(biases)
    if not names or any(name not in model_b for name in names):
        raise ValueError(f"biases are {names}; at least one is needed, and all must be in the models")
    if not 0 < tol < 1:
        raise ValueError(f"tol is {tol}; it must lie in (0, 1)")

    def linear(t: float) -> StateDict:
        return interpolate(model_a, model_b, t)

    def homogeneous(t: float) -> StateDict:
        slow = {name: interpolate(model_a, model_b, t**depth)[name] for depth, name in enumerate(names, start=1)}
        return {**linear(t), **slow}

    def unbiased(t: float) -> StateDict:
        point = linear(t)
        return {**point, names[-1]: torch.zeros_like(point[names[-1]])}

    curves = [loss_along(path, loss_fn, num_points) for path in (linear, homogeneous, unbiased)]
    last = model_b[names[-1]].detach().double().reshape(-1)
    others = (last.sum() - last.max()) / max(len(last) - 1, 1)
    return Plateau(*curves, torch.stack([_length(curve, tol) for curve in curves]), last.max() - others)


def _length(curve: LossCurve, tol: float) -> Tensor:
    """The first position at which the loss has covered the share `tol` of its way; 1 where it never moves."""
    way = curve.losses[0] - curve.losses[-1]
    reached = (curve.losses[0] - curve.losses) * way.sign() >= tol * way.abs() - 1e-12
    return curve.ts[int(reached.nonzero()[0])] if way != 0 else torch.ones((), dtype=curve.ts.dtype)
