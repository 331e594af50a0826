r"""Layer-wise linear mode connectivity (adilova2024layerwise).

Two networks whose average is bad can often share the average of any single layer without harm. For each layer this
puts the average of that layer into either network, leaves all the other layers as they are, and reports how much the
error exceeds the mean error of the two networks. Averaging more and more layers, from the input or from the output,
shows where the harm sets in.

Notation: theta_A and theta_B the two networks, theta^l the parameters of layer l, S a set of layers, E the error.

Departures: the barrier is taken at the average, or at the position `t` that is asked for; a maximum over positions is
not taken. A layer is what shares a name up to the last dot, its weight with its bias.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reference_impls.connectivity.layerwise_interpolation import layer_names
from reference_impls.core.paths import interpolate
from reference_impls.core.state_dict import StateDict


@dataclass(frozen=True)
class LayerwiseBarrier:
    """Excess error over the mean error of the two networks; columns: the rest from A, the rest from B.

    Attributes:
        layers: names of the k layers, from input to output.
        single: one layer is averaged; shape (k, 2).
        from_input: that layer and all before it are averaged; shape (k, 2).
        from_output: that layer and all after it are averaged; shape (k, 2).
        full: all layers are averaged; scalar.
    """

    layers: tuple[str, ...]
    single: Tensor
    from_input: Tensor
    from_output: Tensor
    full: Tensor


def layerwise_barrier(
    model_a: StateDict,
    model_b: StateDict,
    loss_fn: Callable[[StateDict], Tensor],
    *,
    layers: Mapping[str, Sequence[str]] | None = None,
    t: float = 0.5,
) -> LayerwiseBarrier:
    r"""Average one layer, or all up to one, of two networks, and report the excess error.

    $$
    B_S^A = E\big(\theta_A \text{ with } (1 - t)\, \theta_A^l + t\, \theta_B^l \text{ for } l \in S\big)
    - \tfrac12 \big(E(\theta_A) + E(\theta_B)\big)
    $$

    Args:
        model_a: $\theta_A$.
        model_b: $\theta_B$.
        loss_fn: $E$, state dict to scalar; the paper shows loss and error.
        layers: names of the tensors of each layer, from input to output. Default None: what shares a name up to the
            last dot.
        t: position between the layers of A (0) and of B (1), in [0, 1]. Default 0.5: the average.

    Returns:
        A `LayerwiseBarrier`.

    Raises:
        ValueError: models of different structure, a layer with a tensor that does not exist, t outside [0, 1].

    Example:
        Loss (u v - 1)^2; A is (2, 1/2) and B (1/2, 2), both without loss. The average of all is (5/4)^2 = 25/16 and
        its loss 81/256. Only u averaged: 5/4 * 1/2 = 5/8 in A and 5/4 * 2 = 5/2 in B.

        >>> a = {"u": torch.tensor([2.0]), "v": torch.tensor([0.5])}
        >>> b = {"u": torch.tensor([0.5]), "v": torch.tensor([2.0])}
        >>> result = layerwise_barrier(a, b, lambda model: (model["u"] * model["v"] - 1).square().sum())
        >>> result.single[0].tolist(), 256 * result.full.item()
        ([0.140625, 2.25], 81.0)

    References:
        adilova2024layerwise.
    """
    if not 0 <= t <= 1:
        raise ValueError(f"t is {t}; it must lie in [0, 1]")
    groups = layer_names(model_a) if layers is None else layers
    for name, keys in groups.items():
        if missing := [key for key in keys if key not in model_a]:
            raise ValueError(f"layer {name!r} names {missing[0]!r}, which the models lack")
    names = tuple(groups)
    averaged = interpolate(model_a, model_b, t)
    with torch.no_grad():
        mean = (float(loss_fn(model_a)) + float(loss_fn(model_b))) / 2

    def excess(chosen: Sequence[str]) -> list[float]:
        keys = {key for name in chosen for key in groups[name]}
        with torch.no_grad():
            return [
                float(loss_fn({key: averaged[key] if key in keys else tensor for key, tensor in rest.items()})) - mean
                for rest in (model_a, model_b)
            ]

    table = lambda choices: torch.tensor([excess(c) for c in choices], dtype=torch.float64).reshape(-1, 2)  # noqa: E731
    with torch.no_grad():
        full = torch.tensor(float(loss_fn(averaged)) - mean, dtype=torch.float64)
    return LayerwiseBarrier(
        layers=names,
        single=table([name] for name in names),
        from_input=table(names[: i + 1] for i in range(len(names))),
        from_output=table(names[i:] for i in range(len(names))),
        full=full,
    )
