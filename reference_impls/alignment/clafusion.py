r"""CLAFusion, cross-layer alignment (nguyen2021clafusion).

Networks of different depth have no layer-to-layer correspondence to transport units along. CLAFusion first finds one:
every layer of the shallower network is assigned a layer of the deeper one, in order, so that assigned layers represent
the data as similarly as possible; dynamic programming finds the best such assignment. Then it gives the shallower
network the depth of the other, by identity layers where the assignment leaves gaps, and fuses the two, now equally
deep, layer by layer by optimal transport.

Notation: m <= n hidden layers of the shallower model B and the deeper model A, C their dissimilarities (n, m), a(1) <
... < a(m) the assignment.

Departures: the first layers are assigned to each other, because an identity in front of them would pass the inputs
through a ReLU. Dissimilarity is one minus linear CKA. The depth is balanced by adding layers (the paper may also merge
layers); its fine-tuning afterwards is left to the caller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from reference_impls.alignment.otfusion import otfusion
from reference_impls.core.permutation import PermutationSpec
from reference_impls.core.state_dict import StateDict


def clafusion(
    model_a: StateDict,
    model_b: StateDict,
    activations_a: Mapping[str, Tensor],
    activations_b: Mapping[str, Tensor],
    *,
    t: float = 0.5,
    reg: float = 0.0,
) -> StateDict:
    r"""Fuse two ReLU perceptrons of different depth and width.

    $$
    \min_{1 = a(1) < a(2) < \dots < a(m) \le n} \sum_{j=1}^m C_{a(j), j}, \qquad
    C_{ij} = 1 - \frac{\lVert X_i^\top Y_j \rVert_F^2}{\lVert X_i^\top X_i \rVert_F \lVert Y_j^\top Y_j \rVert_F}, \qquad
    W_i^B = I \ \text{ for } i \notin a
    $$

    Args:
        model_a: $\theta_A$, the deeper model (or as deep): linear layers with ReLU in between; the result has its structure.
        model_b: $\theta_B$, the shallower one, with the same inputs and outputs.
        activations_a: $X_i$ of model A's hidden layers by layer name, from the input to the output, each (samples, units).
        activations_b: $Y_j$, the same for model B.
        t: share of model B, in [0, 1]. Default 0.5: the paper's plain average.
        reg: weight of the entropy in the transport problem, >= 0. Default 0.0: exact plans.

    Returns:
        A new state dict, structured as `model_a`.

    Raises:
        ValueError: model A has fewer hidden layers than model B, activations that do not fit the layers, t outside [0,
        1], a negative reg.

    Example:
        Model B has one hidden layer, which is assigned to A's first; A's second meets an identity.

        >>> eye = torch.eye(2)
        >>> model_a = {"0.weight": 2 * eye, "1.weight": 3 * eye, "2.weight": torch.tensor([[1.0, 1.0]])}
        >>> model_b = {"0.weight": 2 * eye, "1.weight": torch.tensor([[5.0, 5.0]])}
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> merged = clafusion(model_a, model_b, {"0": 2 * x, "1": 6 * x}, {"0": 2 * x})
        >>> merged["1.weight"], merged["2.weight"]
        (tensor([[2., 0.],
                [0., 2.]]), tensor([[3., 3.]]))

    References:
        nguyen2021clafusion, cross-layer alignment, layer balancing, fusion.
    """
    layers_a, layers_b = _layers(model_a, activations_a), _layers(model_b, activations_b)
    if len(layers_a) < len(layers_b):
        raise ValueError(f"model A has {len(layers_a) - 1} hidden layers and B {len(layers_b) - 1}; give the deeper model first")
    costs = torch.tensor([[1 - _cka(activations_a[i], activations_b[j]) for j in layers_b[:-1]] for i in layers_a[:-1]])
    assigned = dict(zip(align_layers(costs), layers_b[:-1]))  # place in A -> layer of B

    balanced, activations, last = {}, {}, None
    for place, layer in enumerate(layers_a[:-1]):
        if place in assigned:
            last = assigned[place]
            weight, bias = model_b[f"{last}.weight"], model_b.get(f"{last}.bias")
            activations[layer] = activations_b[last]
        else:  # ReLU(I ReLU(x)) = ReLU(x)
            width = len(model_b[f"{last}.weight"])
            weight = torch.eye(width, dtype=model_b[f"{last}.weight"].dtype, device=model_b[f"{last}.weight"].device)
            bias = weight.new_zeros(width)
            activations[layer] = activations_b[last].relu()
        balanced |= _dress(model_a, layer, weight, bias)
    balanced |= _dress(model_a, layers_a[-1], model_b[f"{layers_b[-1]}.weight"], model_b.get(f"{layers_b[-1]}.bias"))
    balanced = {key: balanced[key] for key in model_a}
    spec = _chain(model_a, layers_a)
    return otfusion(model_a, balanced, spec, t=t, reg=reg, activations_a=activations_a, activations_b=activations)


def align_layers(costs: Tensor) -> list[int]:
    """Return a(1) < ... < a(m), the rows assigned to the columns of the costs (n, m), n >= m, with a(1) = 0; dynamic programming.

    Example:
        >>> align_layers(torch.tensor([[0.1, 0.9], [0.0, 0.5], [0.7, 0.2]]))
        [0, 2]
    """
    n, m = costs.shape
    best = torch.full((n, m), torch.inf, dtype=torch.float64)  # of the first j + 1 columns, the last of them at row i
    best[0, 0] = costs[0, 0]
    for j in range(1, m):
        for i in range(j, n):
            best[i, j] = best[:i, j - 1].min() + costs[i, j]
    rows = [int(best[:, m - 1].argmin())]
    for j in range(m - 2, -1, -1):
        rows.append(int(best[: rows[-1], j].argmin()))
    return rows[::-1]


def _cka(x: Tensor, y: Tensor) -> float:
    """Linear centred kernel alignment of two representations of the same samples, in [0, 1]; 0 where one is constant."""
    x, y = (z.double() - z.double().mean(dim=0) for z in (x, y))
    scale = (x.T @ x).norm() * (y.T @ y).norm()
    return ((x.T @ y).square().sum() / scale).item() if scale > 0 else 0.0


def _layers(model: StateDict, activations: Mapping[str, Tensor]) -> list[str]:
    """Names of the hidden layers, then of the one that follows them."""
    names = [key.removesuffix(".weight") for key in model if key.endswith(".weight")]
    output = [name for name in names if name not in activations]
    fits = [name in names and activations[name].shape[1] == len(model[f"{name}.weight"]) for name in activations]
    if not activations or len(output) != 1 or not all(fits):
        shapes = {name: tuple(value.shape) for name, value in activations.items()}
        raise ValueError(f"one layer of {names} is the output, all others need activations (samples, units); received {shapes}")
    return [*activations, *output]


def _dress(like: StateDict, layer: str, weight: Tensor, bias: Tensor | None) -> dict[str, Tensor]:
    """A layer under model A's name, with a bias of zeros where only A has one."""
    out = {f"{layer}.weight": weight}
    if f"{layer}.bias" in like:
        out[f"{layer}.bias"] = weight.new_zeros(len(weight)) if bias is None else bias
    elif bias is not None and bias.any():
        raise ValueError(f"model B has a bias where layer {layer!r} of model A has none")
    return out


def _chain(model: StateDict, layers: Sequence[str]) -> PermutationSpec:
    """The spec of a perceptron whose hidden units are named by the layer that writes them."""
    axes = {}
    for before, layer in zip([None, *layers], layers):
        units = layer if layer != layers[-1] else None
        axes[f"{layer}.weight"], axes[f"{layer}.bias"] = (units, before), (units,)
    sizes = {layer: len(model[f"{layer}.weight"]) for layer in layers[:-1]}
    return PermutationSpec({key: axes[key] for key in model}, sizes)
