r"""Barrier versus width after optimal matching (ferbach2024proving).

The neurons of a wide two-layer network are like samples of one distribution, so that two trained networks of the same
kind hold two samples of it. The more neurons there are, the closer lies a partner in the other network for each of
them, and the lower is the barrier between the networks once partners are matched by optimal transport. How fast
depends on how many dimensions the neurons' weights really fill. This measures the barrier for pairs of growing width,
before and after the matching, and those dimensions.

Notation: w_i = (row i of W_1, entry i of b_1) the weights into neuron i, P the assignment, B the loss barrier.

Departures: the effective dimension is the participation ratio of the covariance of the neurons' weights, one of
several estimates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reference_impls.core.paths import interpolate, loss_along
from reference_impls.core.permutation import solve_assignment
from reference_impls.core.state_dict import StateDict, check_same_structure


@dataclass(frozen=True)
class WidthBarriers:
    """One entry for each of s pairs of networks.

    Attributes:
        widths: numbers of hidden neurons; shape (s,).
        plain: barriers on the line between the two networks as they are; shape (s,).
        matched: barriers after the neurons of the second are matched to the first's; shape (s,).
        distance: root mean square distance between matched neurons' incoming weights; shape (s,).
        effective_dimension: participation ratio of the covariance of the incoming weights of both networks; shape (s,).
    """

    widths: Tensor
    plain: Tensor
    matched: Tensor
    distance: Tensor
    effective_dimension: Tensor


def barrier_versus_width(
    pairs: Sequence[tuple[StateDict, StateDict]],
    loss_fn: Callable[[StateDict], Tensor],
    *,
    layers: tuple[str, str] = ("layers.0", "layers.1"),
    num_points: int = 11,
) -> WidthBarriers:
    r"""Measure the loss barrier between two-layer networks against their width, before and after matching neurons.

    $$
    P = \arg\min_{P} \sum_i \lVert w_i^A - w_{P(i)}^B \rVert^2, \qquad
    B = \max_t \big[ L((1 - t)\,\theta_A + t\, P\theta_B) - (1 - t)\, L(\theta_A) - t\, L(\theta_B) \big], \qquad
    \tilde d = \frac{(\sum_k \lambda_k)^2}{\sum_k \lambda_k^2}
    $$

    Args:
        pairs: two trained networks $(\theta_A, \theta_B)$ for each width.
        loss_fn: $L$, state dict of any of the widths to scalar.
        layers: names of the layer that writes the hidden neurons and of the layer that reads them. Default: the toy
            zoo's.
        num_points: evenly spaced positions on the line, ends included. Default 11: a choice here.

    Returns:
        A `WidthBarriers`; $\lambda_k$ above are the eigenvalues of the covariance of the $w_i$.

    Raises:
        ValueError: no pairs, networks of a pair that differ in structure, a layer that does not exist.

    Example:
        Neurons 1 and -1 in the one network, -1 and 1 in the other: the same function. Unmatched, the middle has only
        zeros.

        >>> a = {"layers.0.weight": torch.tensor([[1.0], [-1.0]]), "layers.1.weight": torch.tensor([[1.0, -1.0]])}
        >>> b = {"layers.0.weight": torch.tensor([[-1.0], [1.0]]), "layers.1.weight": torch.tensor([[-1.0, 1.0]])}
        >>> loss = lambda model: ((model["layers.1.weight"] @ model["layers.0.weight"]).sum() - 2).square()
        >>> result = barrier_versus_width([(a, b)], loss)
        >>> result.plain.item(), result.matched.item()
        (4.0, 0.0)

    References:
        ferbach2024proving.
    """
    if not pairs:
        raise ValueError("received no pairs of networks; at least one is needed")
    rows = []
    for model_a, model_b in pairs:
        check_same_structure(model_a, model_b)
        if f"{layers[0]}.weight" not in model_a or f"{layers[1]}.weight" not in model_a:
            raise ValueError(
                f"there are no layers {layers[0]!r} and {layers[1]!r}; the names are {', '.join(list(model_a)[:4])}"
            )
        neurons_a, neurons_b = _neurons(model_a, layers[0]), _neurons(model_b, layers[0])
        order = solve_assignment(-torch.cdist(neurons_a, neurons_b).square())
        matched = _reorder(model_b, order, layers)
        plain, after = (
            loss_along(lambda t, a=model_a, b=other: interpolate(a, b, t), loss_fn, num_points).barrier
            for other in (model_b, matched)
        )
        distance = (neurons_a - neurons_b[order]).square().sum(dim=1).mean().sqrt()
        rows.append(
            [
                torch.tensor(float(len(neurons_a))),
                plain,
                after,
                distance,
                _participation(torch.cat([neurons_a, neurons_b])),
            ]
        )
    columns = [torch.stack([torch.as_tensor(v, dtype=torch.float64).cpu() for v in column]) for column in zip(*rows)]
    return WidthBarriers(columns[0].long(), *columns[1:])


def _neurons(model: StateDict, layer: str) -> Tensor:
    """The weights into each hidden neuron, its bias included: (width, inputs + 1)."""
    weight = model[f"{layer}.weight"].detach().double()
    bias = model.get(f"{layer}.bias")
    return weight if bias is None else torch.cat([weight, bias.detach().double()[:, None]], dim=1)


def _reorder(model: StateDict, order: Tensor, layers: tuple[str, str]) -> dict[str, Tensor]:
    """The same function with its hidden neurons in another order."""
    out = {key: tensor.clone() for key, tensor in model.items()}
    for key in (f"{layers[0]}.weight", f"{layers[0]}.bias"):
        if key in out:
            out[key] = out[key][order]
    out[f"{layers[1]}.weight"] = out[f"{layers[1]}.weight"][:, order]
    return out


def _participation(neurons: Tensor) -> Tensor:
    """How many dimensions the neurons' weights fill, between 1 and their number of entries; 0 if all are equal."""
    centred = neurons - neurons.mean(dim=0)
    eigenvalues = torch.linalg.svdvals(centred).square()
    return eigenvalues.sum().square() / eigenvalues.square().sum().clamp(min=1e-300)
