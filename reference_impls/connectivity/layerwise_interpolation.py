r"""Layer-wise interpolation from the initial to the final weights (vlaar2022what).

The loss on the straight line from a network's initialisation to its trained weights is often read as a sign of how
hard the training was. Looking at one layer at a time, with all the others at their trained values, shows which layers
make the shape of that line, and that the shape says little about how good the network is.

Notation: theta_0 the initialisation, theta_T the trained weights, theta^l the parameters of layer l, alpha the
position.

Departures: none. A layer is what shares a name up to the last dot, its weight with its bias.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from reference_impls.core.paths import LossCurve, interpolate, loss_along
from reference_impls.core.state_dict import StateDict, to_vector


@dataclass(frozen=True)
class LayerwiseInterpolation:
    """The loss from the initialisation (t = 0) to the trained weights (t = 1).

    Attributes:
        whole: all layers move together.
        layers: by the name of the layer that moves alone.
    """

    whole: LossCurve
    layers: Mapping[str, LossCurve]


def layerwise_interpolation(
    model_a: StateDict,
    model_b: StateDict,
    loss_fn: Callable[[StateDict], Tensor],
    *,
    layers: Mapping[str, Sequence[str]] | None = None,
    num_points: int = 50,
) -> LayerwiseInterpolation:
    r"""Evaluate the loss from the initial to the final weights, for the whole network and for one layer at a time.

    $$
    L\big((1 - \alpha)\, \theta_0 + \alpha\, \theta_T\big), \qquad
    L\big(\theta_T^1, \dots, (1 - \alpha)\, \theta_0^l + \alpha\, \theta_T^l, \dots, \theta_T^k\big)
    $$

    Args:
        model_a: $\theta_0$, the initial weights.
        model_b: $\theta_T$, the final weights.
        loss_fn: $L$, state dict to scalar.
        layers: names of the tensors of each layer. Default None: what shares a name up to the last dot.
        num_points: evenly spaced values of $\alpha$, ends included. Default 50: a choice here.

    Returns:
        A `LayerwiseInterpolation`: one curve for the whole network and one for each layer.

    Raises:
        ValueError: models of different structure, a layer with a tensor that does not exist, fewer than 2 points.

    Example:
        f = u v with initial weights 0 and final weights 1: the product is alpha^2 on the line, and alpha if one layer
        moves alone.

        >>> import torch
        >>> a = {"u.weight": torch.zeros(1), "v.weight": torch.zeros(1)}
        >>> b = {"u.weight": torch.ones(1), "v.weight": torch.ones(1)}
        >>> product = lambda model: (model["u.weight"] * model["v.weight"]).sum()
        >>> result = layerwise_interpolation(a, b, product, num_points=3)
        >>> result.whole.losses.tolist(), result.layers["u"].losses.tolist()
        ([0.0, 0.25, 1.0], [0.0, 0.5, 1.0])

    References:
        vlaar2022what.
    """
    groups = layer_names(model_b) if layers is None else layers
    for name, keys in groups.items():
        if missing := [key for key in keys if key not in model_b]:
            raise ValueError(f"layer {name!r} names {missing[0]!r}, which the models lack")

    def moving(keys: Sequence[str]) -> Callable[[float], StateDict]:
        def path(t: float) -> StateDict:
            point = interpolate(model_a, model_b, t)
            return {key: point[key] if key in keys else tensor for key, tensor in model_b.items()}

        return path

    return LayerwiseInterpolation(
        whole=loss_along(lambda t: interpolate(model_a, model_b, t), loss_fn, num_points),
        layers={name: loss_along(moving(keys), loss_fn, num_points) for name, keys in groups.items()},
    )


def layer_names(model: StateDict) -> dict[str, list[str]]:
    """The floating-point tensors of each layer, by the name up to the last dot."""
    groups: dict[str, list[str]] = {}
    for key in to_vector(model):
        groups.setdefault(key.rpartition(".")[0] or key, []).append(key)
    return groups
