r"""Zero-loss path through neuron replication (simsek2021geometry).

A two-layer network and its copy with permuted neurons are two separate points as long as every neuron is needed. One
additional neuron joins them: it can become a replica of any other neuron, take over its outgoing weights bit by bit,
and so free the other's place for the next one. All these moves are straight segments along which the function does not
change at all. The same reasoning counts the affine subspaces of minima of a network of m neurons: how many where r
neurons would do (T), and how many belong to a critical point of r neurons (G).

Notation: neuron i has incoming weights w_i (with its bias) and outgoing weights a_i; slot m + 1 is the additional
neuron; pi the order.

Departures: none. The additional slot starts and ends with outgoing weights of zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import comb, factorial

import torch
from torch import Tensor

from reference_impls.core.paths import LossCurve, evenly_spaced, interpolate
from reference_impls.core.state_dict import StateDict


@dataclass(frozen=True)
class ReplicationPath:
    """A path of straight segments from a network to its permuted copy, both with one additional neuron.

    Attributes:
        points: corners of the path.
        losses: along the path; every segment takes the same share of the positions.
        variation: largest minus smallest loss on the path, zero up to rounding; scalar.
    """

    points: tuple[StateDict, ...]
    losses: LossCurve
    variation: Tensor


def neuron_replication_path(
    model_a: StateDict,
    loss_fn: Callable[[StateDict], Tensor],
    *,
    order: Sequence[int] | None = None,
    layers: tuple[str, str] = ("layers.0", "layers.1"),
    num_points: int = 5,
) -> ReplicationPath:
    r"""Join a two-layer network to its permuted copy by a path on which its function does not change.

    $$
    a_i\, \sigma(w_i x) = (1 - t)\, a_i\, \sigma(w_i x) + t\, a_i\, \sigma(w_{m+1} x) \quad \text{where } w_{m+1} = w_i
    $$

    Args:
        model_a: the network: tensors weight and, if there are any, bias for the two layers.
        loss_fn: $L$, state dict with one neuron more than `model_a` to scalar.
        order: $\pi$: neuron i of the copy is neuron order[i] of the network. Default None: the reverse order.
        layers: names of the layer that writes the hidden neurons and of the layer that reads them. Default: the toy
            zoo's.
        num_points: positions on every segment, ends included. Default 5: a choice here.

    Returns:
        A `ReplicationPath`.

    Raises:
        ValueError: a layer that does not exist, an order that is no permutation.

    Example:
        Two neurons change places: three moves in a circle through the additional slot, of two segments each.

        >>> net = {"layers.0.weight": torch.tensor([[1.0], [2.0]]), "layers.1.weight": torch.tensor([[3.0, 5.0]])}
        >>> output = lambda model: torch.relu(model["layers.0.weight"]).T @ model["layers.1.weight"].T
        >>> loss = lambda model: (output(model) - 10).square().sum()
        >>> path = neuron_replication_path(net, loss)
        >>> len(path.points), path.points[-1]["layers.0.weight"].flatten().tolist()[:2], path.losses.losses.max().item()
        (7, [2.0, 1.0], 9.0)

    References:
        simsek2021geometry.
    """
    if any(f"{layer}.weight" not in model_a for layer in layers):
        raise ValueError(
            f"there are no layers {layers[0]!r} and {layers[1]!r}; the names are {', '.join(list(model_a)[:4])}"
        )
    width = len(model_a[f"{layers[0]}.weight"])
    order = list(range(width))[::-1] if order is None else list(order)
    if sorted(order) != list(range(width)):
        raise ValueError(f"order is {order}; a permutation of 0 to {width - 1} is needed")

    points = [_with_one_more(model_a, layers)]
    for origin, target in _moves(order):
        points.append(
            _replicate(points[-1], origin, target, layers)
        )  # the free slot becomes a replica: nothing reads it
        points.append(
            _hand_over(points[-1], origin, target, layers)
        )  # equal neurons: only the sum of their outputs counts
    ts = torch.linspace(0, 1, num_points).tolist()
    with torch.no_grad():
        values = [float(loss_fn(interpolate(p, q, t))) for p, q in zip(points, points[1:]) for t in ts[:-1]]
        values.append(float(loss_fn(points[-1])))
    values = values if len(values) > 1 else values * 2
    losses = torch.tensor(values, dtype=torch.float64)
    return ReplicationPath(tuple(points), LossCurve(evenly_spaced(len(values)), losses), losses.max() - losses.min())


def critical_subspaces(r: int, m: int) -> int:
    r"""Return $G(r, m)$, the number of affine subspaces that r distinct neurons span in a network of m neurons.

    $$ G(r, m) = \sum_{i=1}^r \binom{r}{i} (-1)^{r-i}\, i^m $$

    Example:
        Three neurons replicate two: AAB and ABB in their three orders each.

        >>> critical_subspaces(2, 3)
        6
    """
    if not 1 <= r <= m:
        raise ValueError(f"received r={r} and m={m}; 1 <= r <= m is needed")
    return sum(comb(r, i) * (-1) ** (r - i) * i**m for i in range(1, r + 1))


def minima_subspaces(r: int, m: int) -> int:
    r"""Return $T(r, m)$, the number of affine subspaces of global minima of m neurons where r neurons suffice.

    $$
    T(r, m) = G(r, m) + \sum_{u=1}^{m-r} \binom{m}{u}\, G(r, m - u)\, g(u), \qquad
    g(u) = \sum_{j=1}^{u} \frac{1}{j!}\, G(j, u)
    $$

    Here g(u) counts the ways to group u neurons whose outputs cancel within each group.

    Example:
        One neuron needed, two there: both replicate it (1), or one does and the other's output is zero (2).

        >>> minima_subspaces(1, 2)
        3
    """
    groups = lambda u: sum(critical_subspaces(j, u) // factorial(j) for j in range(1, u + 1))  # noqa: E731
    return critical_subspaces(r, m) + sum(
        comb(m, u) * critical_subspaces(r, m - u) * groups(u) for u in range(1, m - r + 1)
    )


def _moves(order: Sequence[int]) -> list[tuple[int, int]]:
    """The moves (from slot, to free slot) that realise a permutation with one additional slot, cycle by cycle."""
    free, moves, done = len(order), [], set()
    for start in range(len(order)):
        if start in done or order[start] == start:
            continue
        moves.append((start, free))  # park the first neuron of the cycle
        slot = start
        while order[slot] != start:
            moves.append((order[slot], slot))
            done.add(slot)
            slot = order[slot]
        moves.append((free, slot))
        done.add(slot)
    return moves


def _with_one_more(model: StateDict, layers: tuple[str, str]) -> dict[str, Tensor]:
    """The same function with an additional neuron of zero weights."""
    out = {key: tensor.detach().clone() for key, tensor in model.items()}
    for key in (f"{layers[0]}.weight", f"{layers[0]}.bias"):
        if key in out:
            out[key] = torch.cat([out[key], torch.zeros_like(out[key][:1])])
    key = f"{layers[1]}.weight"
    out[key] = torch.cat([out[key], torch.zeros_like(out[key][:, :1])], dim=1)
    return out


def _replicate(model: StateDict, origin: int, target: int, layers: tuple[str, str]) -> dict[str, Tensor]:
    """Give the target slot the incoming weights of the origin."""
    out = {key: tensor.clone() for key, tensor in model.items()}
    for key in (f"{layers[0]}.weight", f"{layers[0]}.bias"):
        if key in out:
            out[key][target] = out[key][origin]
    return out


def _hand_over(model: StateDict, origin: int, target: int, layers: tuple[str, str]) -> dict[str, Tensor]:
    """Move the outgoing weights from the origin to its replica."""
    out = {key: tensor.clone() for key, tensor in model.items()}
    weight = out[f"{layers[1]}.weight"]
    weight[:, target] = weight[:, origin]
    weight[:, origin] = 0
    return out
