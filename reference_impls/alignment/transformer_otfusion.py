r"""Transformer OTFusion (imfeld2024transformer).

Optimal transport aligns the units of one layer with those of another network's; in a transformer the resulting maps
meet. Where a branch is added to the residual stream, the map of the stream and the map of the branch are averaged, and
what reads the stream afterwards is rewritten with the average. Heads are moved as wholes, normalisations and embeddings
along with the stream. Plans are soft: a little entropy in the transport problem lets a unit correspond to several.
Widths may differ.

Notation: T a transport plan, M = n_A T the map from units of B to units of A; M_s the map of the stream before a
branch, M_b that of the branch.

Departures: layers are taken in the order of the state dict, which must be that of the forward pass. Queries and keys
share one map, as their product needs. The entropy is in units of the mean cost, so that it means the same in every
layer. The paper also matches across heads and weighs the two maps by the data; here heads are wholes and the weight is
a number.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from reference_impls.core.permutation import PermutationSpec, transform
from reference_impls.core.state_dict import StateDict, linear_combination, to_state_dict, to_vector
from reference_impls.core.transport import transport_plan


def transformer_otfusion(
    model_a: StateDict,
    model_b: StateDict,
    activations_a: Mapping[str, Tensor],
    activations_b: Mapping[str, Tensor],
    spec: PermutationSpec,
    *,
    t: float = 0.5,
    reg: float = 0.1,
    skip: float = 0.5,
) -> StateDict:
    r"""Transport model B's units onto model A's along the graph of a transformer, and average.

    $$
    T = \arg\min_T \langle T, C(Z_A, Z_B) \rangle - \tau \bar C\, H(T), \qquad
    M_s \leftarrow \gamma M_s + (1 - \gamma) M_b \ \text{ at every residual connection}, \qquad
    W = (1 - t)\, W_A + t\, M_{\text{out}} W_B M_{\text{in}}^\top
    $$

    Args:
        model_a: $\theta_A$, whose widths the result has.
        model_b: $\theta_B$; its widths may be others, the number of heads may not.
        activations_a: $Z_A$ by layer name, each (samples, units): what the layer writes; see `layer_activations`.
        activations_b: $Z_B$, of the same samples.
        spec: which axes hold which units, for model A.
        t: share of model B, in [0, 1]. Default 0.5: the paper's plain average.
        reg: $\tau$, weight of the entropy in units of the mean cost $\bar C$, >= 0; 0 gives hard maps for equal widths.
            Default 0.1, in the soft regime that the paper prefers; its own values are tuned per pair of models.
        skip: $\gamma$, share of the stream's map at a residual connection, in [0, 1]. Default 0.5: the paper's averaging.

    Returns:
        A new state dict, structured as `model_a`.

    Raises:
        ValueError: a layer without activations in one model, other numbers of samples, inputs or outputs, t or skip
        outside [0, 1].

    Example:
        Unit 1 of model A fires like unit 2 of model B; hard maps exchange B's units before the average.

        >>> spec = PermutationSpec({"first.weight": ("h", None), "head.weight": (None, "h")}, {"h": 2})
        >>> model_a = {"first.weight": torch.tensor([[1.0], [2.0]]), "head.weight": torch.tensor([[3.0, 4.0]])}
        >>> model_b = {"first.weight": torch.tensor([[4.0], [3.0]]), "head.weight": torch.tensor([[6.0, 5.0]])}
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> transformer_otfusion(model_a, model_b, {"first": x}, {"first": x.flip(1)}, spec, reg=0.0)
        {'first.weight': tensor([[2.],
                [3.]]), 'head.weight': tensor([[4., 5.]])}

    References:
        imfeld2024transformer, residual connections, attention, normalisation, embeddings; soft alignment.
    """
    for name, value in (("t", t), ("skip", skip)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is {value}; it is a share, in [0, 1]")
    spec.check(model_a)
    a, b = to_vector(model_a), to_vector(model_b)
    if set(a) != set(b):
        raise ValueError(f"the models differ in their names: {sorted(set(a) ^ set(b))[:3]}")
    layers = _writers(spec, activations_a, activations_b)
    joint = _head_maps(spec, layers, activations_a, activations_b, reg)

    current: dict[str, Tensor] = dict(joint)  # the map of every permutation at this point of the network
    transported, written = {}, None
    for key in a:  # in the order of the forward pass
        layer = key.rpartition(".")[0]
        if layer in layers and layer != written and (name := layers[layer]) not in joint:
            own = _map(activations_a[layer], activations_b[layer], reg)
            writes, reads, written = {**current, name: own}, dict(current), layer
            current[name] = own if name not in current else skip * current[name] + (1 - skip) * own
        elif layer != written:
            writes = reads = dict(current)
        missing = [p for p in spec.axes[key] if p is not None and p not in writes]
        if missing:
            raise ValueError(f"{key!r} holds the units of {missing[0]!r} before any layer with activations has written them")
        transported[key] = transform(spec, writes, key, b[key].double(), inverses=reads).to(a[key].dtype)
        if transported[key].shape != a[key].shape:
            shapes = f"shape {tuple(b[key].shape)} in model B, {tuple(a[key].shape)} in A"
            raise ValueError(f"{key!r} has {shapes}; inputs and outputs must agree")
    return to_state_dict(linear_combination([a, transported], [1 - t, t]), like=model_a)


def _writers(spec: PermutationSpec, activations_a: Mapping[str, Tensor], activations_b: Mapping[str, Tensor]) -> dict[str, str]:
    """The layers that write units and were observed, with the permutation they write."""
    writers = {}
    for key, axes in spec.axes.items():
        layer = key.rpartition(".")[0]
        for axis, name in enumerate(axes):
            if name is not None and len(axes) > 1 and (key, axis) not in spec.reads and layer in activations_a:
                writers[layer] = name
                if layer not in activations_b or len(activations_a[layer]) != len(activations_b[layer]):
                    found = {k: tuple(v.shape) for k, v in activations_b.items()}
                    samples = len(activations_a[layer])
                    raise ValueError(f"activations_b need {samples} samples of layer {layer!r}; received {found}")
    return writers


def _cost(z_a: Tensor, z_b: Tensor) -> Tensor:
    """Distances between the activations of the units, (units of A, units of B)."""
    return torch.cdist(z_a.double().T, z_b.double().T, compute_mode="donot_use_mm_for_euclid_dist")


def _plan(cost: Tensor, reg: float) -> Tensor:
    mean = cost.mean().item()
    return transport_plan(cost / mean if mean > 0 else cost, reg=reg)


def _map(z_a: Tensor, z_b: Tensor, reg: float) -> Tensor:
    """M = n_A T, rows summing to 1."""
    return z_a.shape[1] * _plan(_cost(z_a, z_b), reg)


def _head_maps(
    spec: PermutationSpec,
    layers: Mapping[str, str],
    activations_a: Mapping[str, Tensor],
    activations_b: Mapping[str, Tensor],
    reg: float,
) -> dict[str, Tensor]:
    """Units that come in heads: transport within every pair of heads, then hard between heads by what that costs."""
    out = {}
    for names, count in spec.blocks.items():
        costs = {}
        for name in names:
            of = [layer for layer, written in layers.items() if written == name]
            if not of:
                raise ValueError(f"no layer that writes {name!r} has activations; received {sorted(activations_a)}")
            cost = _cost(torch.cat([activations_a[layer] for layer in of]), torch.cat([activations_b[layer] for layer in of]))
            costs[name] = cost.reshape(count, cost.shape[0] // count, count, -1)
        plans = {(n, i, j): _plan(c[i, :, j], reg) for n, c in costs.items() for i in range(count) for j in range(count)}
        between = torch.tensor(
            [[sum((plans[n, i, j] * costs[n][i, :, j]).sum().item() for n in names) for j in range(count)] for i in range(count)]
        )
        heads = count * transport_plan(between)  # a permutation
        for name, cost in costs.items():
            rows = [torch.cat([heads[i, j] * plans[name, i, j] for j in range(count)], dim=1) for i in range(count)]
            out[name] = cost.shape[1] * torch.cat(rows)
    return out
