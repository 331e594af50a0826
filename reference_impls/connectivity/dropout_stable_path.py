r"""Dropout-stable path (kuditipudi2019explaining).

If a network keeps a low loss with half of the units of every layer removed and the rest scaled up, it has room to
spare, and then a path of low loss to any other such network can be written down without training. Units that nothing
reads may change freely. So the first network is emptied, layer by layer, onto one half of its units; the other half is
rewritten into the second network's halved version; the last layer moves over; and the second network is refilled in
the same way, backwards.

Notation: W_1 .. W_d the layers, theta^(i) the network with the layers i .. d-1 halved, S and its complement the two
halves.

Departures: the halves are the first and the second half of the units, where the paper takes the best dropout pattern;
both networks are multilayer perceptrons with ReLU. Along every segment either the loss is constant or only the last
layer moves, in which it is convex.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reference_impls.core.paths import LossCurve, evenly_spaced, interpolate
from reference_impls.core.state_dict import StateDict, check_same_structure


@dataclass(frozen=True)
class DropoutPath:
    """A path of straight segments between two networks.

    Attributes:
        points: corners of the path, from the first network to the second.
        losses: along the path; every segment takes the same share of the positions.
        max_loss: the highest loss on the path; scalar.
        stability_gap: largest loss of a halved version above its network's, of the two networks; scalar.
    """

    points: tuple[StateDict, ...]
    losses: LossCurve
    max_loss: Tensor
    stability_gap: Tensor


def dropout_stable_path(
    model_a: StateDict,
    model_b: StateDict,
    loss_fn: Callable[[StateDict], Tensor],
    *,
    layers: Sequence[str] = ("layers.0", "layers.1", "layers.2"),
    rescale: float = 2.0,
    num_points: int = 5,
) -> DropoutPath:
    r"""Write down a path of low loss between two networks that bear the loss of half of their units.

    $$
    \theta_A = \theta_A^{(d)} \to \theta_A^{(d-1)} \to \dots \to \theta_A^{(1)} \to
    \theta_B^{(1)} \to \dots \to \theta_B, \qquad
    \max_{\text{path}} L \le \max_i \big\{ L(\theta_A^{(i)}),\ L(\theta_B^{(i)}) \big\}
    $$

    Args:
        model_a: $\theta_A$, with tensors weight and, if there are any, bias for each layer.
        model_b: $\theta_B$.
        loss_fn: $L$, state dict to scalar, convex in the last layer (cross-entropy, square).
        layers: names of the linear layers, from input to output, at least 2. Default: the toy zoo's perceptron.
        rescale: factor on what reads the remaining half. Default 2.0: as much as was dropped; 1.0 does not scale.
        num_points: positions on every segment, ends included. Default 5: a choice here.

    Returns:
        A `DropoutPath`.

    Raises:
        ValueError: networks of different structure, a missing layer, layers that do not fit, a layer with fewer than 2
            units.

    Example:
        Two units that both compute x / 2, in either network: one of them doubled does as well, so the whole path has
        no loss.

        >>> a = {"u.weight": torch.tensor([[1.0], [1.0]]), "v.weight": torch.tensor([[0.5, 0.5]])}
        >>> b = {"u.weight": torch.tensor([[2.0], [2.0]]), "v.weight": torch.tensor([[0.25, 0.25]])}
        >>> f = lambda model, x: torch.relu(x @ model["u.weight"].T) @ model["v.weight"].T
        >>> loss = lambda model: (f(model, torch.tensor([[3.0]])) - 3).square().sum()
        >>> path = dropout_stable_path(a, b, loss, layers=("u", "v"))
        >>> len(path.points), path.max_loss.item(), round(loss(interpolate(a, b, 0.5)).item(), 4)
        (6, 0.0, 0.1406)

    References:
        kuditipudi2019explaining, the theorem on dropout-stable networks.
    """
    check_same_structure(model_a, model_b)
    _check_layers(model_a, layers)
    going = _emptying(model_a, layers, rescale, first_half=True)
    coming = _emptying(model_b, layers, rescale, first_half=False)[::-1]

    # the two halved networks use different halves: write B's into the free half of A, then let the last layer move over
    both = _write(going[-1], coming[0], layers, first_half=False)
    points = [*going, both, _last_layer(both, coming[0], layers), *coming]

    ts = torch.linspace(0, 1, num_points).tolist()
    with torch.no_grad():
        values = [float(loss_fn(interpolate(p, q, t))) for p, q in zip(points, points[1:]) for t in ts[:-1]]
        values.append(float(loss_fn(points[-1])))
        halved = max(float(loss_fn(going[-1])) - values[0], float(loss_fn(coming[0])) - values[-1])
    losses = torch.tensor(values, dtype=torch.float64)
    gap = torch.tensor(halved, dtype=torch.float64)
    return DropoutPath(tuple(points), LossCurve(evenly_spaced(len(values)), losses), losses.max(), gap)


def _half(model: StateDict, layer: str, first: bool) -> slice:
    """The units of a layer that belong to one half; of an odd number the middle one belongs to none."""
    size = len(model[f"{layer}.weight"])
    return slice(0, size // 2) if first else slice(size - size // 2, size)


def _emptying(model: StateDict, layers: Sequence[str], rescale: float, first_half: bool) -> list[dict[str, Tensor]]:
    """From the network to the version that uses one half of the units of every hidden layer, corner by corner."""
    points = [{key: tensor.clone() for key, tensor in model.items()}]
    for i in range(len(layers) - 1, 0, -1):  # layer i reads the hidden layer i - 1, which is to be halved
        # the target: reading only one half, scaled; what lies behind it is halved already
        target = {key: tensor.clone() for key, tensor in points[-1].items()}
        keep = _half(model, layers[i - 1], first_half)
        weight = torch.zeros_like(target[f"{layers[i]}.weight"])
        rows = slice(None) if i == len(layers) - 1 else _half(model, layers[i], first_half)
        weight[rows, keep] = rescale * target[f"{layers[i]}.weight"][rows, keep]
        target[f"{layers[i]}.weight"] = weight
        if (
            i < len(layers) - 1
        ):  # build it in the free half, move the last layer there, rewrite the first half, move back
            mirrored = _mirror(target, layers, i, first_half)
            built = _write(points[-1], mirrored, layers, not first_half, since=i)
            points += [built, _last_layer(built, mirrored, layers)]
            points += [_write(points[-1], target, layers, first_half, since=i)]
            points += [_last_layer(points[-1], target, layers)]
        points.append(target)
    return points


def _mirror(model: StateDict, layers: Sequence[str], since: int, first_half: bool) -> dict[str, Tensor]:
    """The same network with the hidden layers from `since` on moved from the one half of the units to the other."""
    out = {key: tensor.clone() for key, tensor in model.items()}
    for i in range(since, len(layers)):
        weight, moved = model[f"{layers[i]}.weight"], torch.zeros_like(model[f"{layers[i]}.weight"])
        here, there = (_half(model, layers[i], first) for first in (first_half, not first_half))
        rows, to_rows = (slice(None), slice(None)) if i == len(layers) - 1 else (here, there)
        if i == since:
            moved[to_rows] = weight[rows]
        else:
            reads, to_reads = (_half(model, layers[i - 1], first) for first in (first_half, not first_half))
            moved[to_rows, to_reads] = weight[rows, reads]
        out[f"{layers[i]}.weight"] = moved
        if i < len(layers) - 1 and f"{layers[i]}.bias" in out:
            out[f"{layers[i]}.bias"][there] = model[f"{layers[i]}.bias"][here]
    return out


def _write(
    model: StateDict, source: StateDict, layers: Sequence[str], first_half: bool, since: int = 0
) -> dict[str, Tensor]:
    """`model` with the units of one half taken from `source`, in the hidden layers from `since` on."""
    out = {key: tensor.clone() for key, tensor in model.items()}
    for layer in layers[since:-1]:
        units = _half(model, layer, first_half)
        for key in (f"{layer}.weight", f"{layer}.bias"):
            if key in out:
                out[key][units] = source[key][units]
    return out


def _last_layer(model: StateDict, source: StateDict, layers: Sequence[str]) -> dict[str, Tensor]:
    """`model` with the last layer of `source`."""
    return {key: (source if key.startswith(f"{layers[-1]}.") else model)[key].clone() for key in model}


def _check_layers(model: StateDict, layers: Sequence[str]) -> None:
    if len(layers) < 2 or any(f"{layer}.weight" not in model for layer in layers):
        raise ValueError(
            f"layers are {tuple(layers)}; at least 2 are needed, and all must be among {', '.join(list(model)[:6])}"
        )
    shapes = [tuple(model[f"{layer}.weight"].shape) for layer in layers]
    if (
        any(len(s) != 2 for s in shapes)
        or any(a[0] != b[1] for a, b in zip(shapes, shapes[1:]))
        or min(s[0] for s in shapes[:-1]) < 2
    ):
        raise ValueError(
            f"the weights have shapes {shapes}; linear layers that follow one another, of 2 units at least, are needed"
        )
