r"""OTFusion (singh2020otfusion).

The units of two networks need not come in equal numbers to be matched: optimal transport moves the units of one layer
onto those of the other at the least total cost, splitting a unit where it must. OTFusion goes through the layers from
the input to the output. In each, it first rewrites the second network's incoming weights in terms of the first's units
of the layer before, then finds the transport plan between the units of this layer, moves the second network's units
along it, and finally averages the two networks.

Notation: W_A, W_B the weights of a layer; T its transport plan, (units of A, units of B); C the cost, distances between units.

Departures: none for feed-forward networks; here the plan carries model B to the widths of model A. A unit's cost covers
all tensors that write it (weights, bias, normalisation) whose inputs are already aligned, so a residual stream is
matched where it begins. Heads are moved as wholes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from reference_impls.core.permutation import PermutationSpec, transform, unit_rows
from reference_impls.core.state_dict import StateDict, Vector, linear_combination, to_state_dict, to_vector
from reference_impls.core.transport import transport_plan


def otfusion(
    model_a: StateDict,
    model_b: StateDict,
    spec: PermutationSpec,
    *,
    t: float = 0.5,
    reg: float = 0.0,
    activations_a: Mapping[str, Tensor] | None = None,
    activations_b: Mapping[str, Tensor] | None = None,
) -> StateDict:
    r"""Transport model B's units onto model A's, layer by layer, and average; widths may differ.

    $$
    \hat W_B^l = W_B^l\, (M^{l-1})^\top, \qquad
    T^l = \arg\min_{T} \langle T, C(W_A^l, \hat W_B^l) \rangle, \qquad
    M^l = n_A^l\, T^l, \qquad
    W^l = (1-t)\, W_A^l + t\, M^l \hat W_B^l
    $$

    Args:
        model_a: $\theta_A$, whose widths the result has.
        model_b: $\theta_B$; its hidden widths may be others.
        spec: which axes hold which units, for model A.
        t: share of model B, in [0, 1]. Default 0.5: the paper's plain average.
        reg: weight of the entropy in the transport problem, >= 0. Default 0.0: exact plans, which the paper prefers.
        activations_a: by permutation name, (samples, units): costs are then distances between activations. Default
            None: between weights.
        activations_b: the same for model B, of the same samples. Default None: with `activations_a`.

    Returns:
        A new state dict, structured as `model_a`.

    Raises:
        ValueError: other names, inputs or outputs than model A's, t outside [0, 1], a negative reg, one model's
        activations without the other's.

    Example:
        Model B has its two units exchanged and one more: (2), (1) and (1). The plan takes both copies to unit 1 and,
        for the equal mass, a part of them to unit 2: unit 1 stays (1), unit 2 becomes 2/3 (2) + 1/3 (1) = 5/3, and its
        average with 2 is 11/6.

        >>> spec = PermutationSpec({"first.weight": ("hidden", None)}, {"hidden": 2})
        >>> model_a = {"first.weight": torch.tensor([[1.0], [2.0]])}
        >>> model_b = {"first.weight": torch.tensor([[2.0], [1.0], [1.0]])}
        >>> otfusion(model_a, model_b, spec)["first.weight"]
        tensor([[1.0000],
                [1.8333]])

    References:
        singh2020otfusion, Algorithm 1.
    """
    if not 0 <= t <= 1:
        raise ValueError(f"t is {t}; it is the share of model B, in [0, 1]")
    maps = transport_maps(model_a, model_b, spec, reg=reg, activations_a=activations_a, activations_b=activations_b)
    a, b = to_vector(model_a), to_vector(model_b)
    transported = {key: transform(spec, maps, key, b[key].double()).to(a[key].dtype) for key in a}
    return to_state_dict(linear_combination([a, transported], [1 - t, t]), like=model_a)


def transport_maps(
    model_a: StateDict,
    model_b: StateDict,
    spec: PermutationSpec,
    *,
    reg: float = 0.0,
    activations_a: Mapping[str, Tensor] | None = None,
    activations_b: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Return M = n_A T of every layer, (units of A, units of B), rows summing to 1. Arguments as in `otfusion`."""
    if (activations_a is None) != (activations_b is None):
        raise ValueError("received the activations of one model only; both or none are needed")
    spec.check(model_a)
    widths = _widths(model_a, model_b, spec)
    a, b = to_vector(model_a), to_vector(model_b)
    maps: dict[str, Tensor] = {}
    for names in spec.coordinates():  # from the input to the output
        costs = {}
        for name in names:
            if activations_a is None:
                rows_a, rows_b = _rows(spec, name, a, {}, maps), _rows(spec, name, b, maps, maps)
            else:
                rows_a, rows_b = _columns(activations_a, name, spec.sizes[name]), _columns(activations_b, name, widths[name])
            if rows_a.shape[1] != rows_b.shape[1]:
                counts = f"{rows_a.shape[1]} and {rows_b.shape[1]}"
                raise ValueError(f"{name!r}: received activations of {counts} samples; the same samples are needed")
            costs[name] = torch.cdist(rows_a, rows_b, compute_mode="donot_use_mm_for_euclid_dist")
        maps |= _plans(costs, names, spec.blocks.get(names, 1), reg)
    return maps


def _plans(costs: dict[str, Tensor], names: tuple[str, ...], count: int, reg: float) -> dict[str, Tensor]:
    """Transport within every pair of blocks, then between the blocks by what that costs; a plain layer is a single block."""
    pieces = {name: cost.reshape(count, cost.shape[0] // count, count, -1) for name, cost in costs.items()}
    pairs = [(i, j) for i in range(count) for j in range(count)]
    inner = {(n, i, j): transport_plan(p[i, :, j], reg=reg) for n, p in pieces.items() for i, j in pairs}
    between = torch.tensor(
        [[sum((inner[n, i, j] * pieces[n][i, :, j]).sum().item() for n in names) for j in range(count)] for i in range(count)]
    )
    outer = transport_plan(between, reg=reg) if count > 1 else torch.ones(1, 1)
    out = {}
    for name in names:
        rows = [torch.cat([outer[i, j] * inner[name, i, j] for j in range(count)], dim=1) for i in range(count)]
        out[name] = len(costs[name]) * torch.cat(rows)
    return out


def _rows(spec: PermutationSpec, name: str, vector: Vector, maps: Mapping[str, Tensor], known: Mapping[str, Tensor]) -> Tensor:
    """What writes the units, one row per unit: all tensors whose other axes are fixed or already mapped."""
    rows = []
    for key, axis in spec.places(name):
        others = [p for i, p in enumerate(spec.axes[key]) if i != axis and p is not None]
        if key in vector and key not in spec.buffers and (key, axis) not in spec.reads and all(p in known for p in others):
            tensor = transform(spec, maps, key, vector[key].double(), skip=axis)
            rows.append(unit_rows(spec, key, axis, tensor))
    return torch.cat(rows, dim=1)


def _columns(activations: Mapping[str, Tensor], name: str, width: int) -> Tensor:
    """Activations with one row per unit."""
    if name not in activations or activations[name].shape[1] != width:
        found = {key: tuple(value.shape) for key, value in activations.items()}
        raise ValueError(f"activations need {width} units for {name!r}; received {found}")
    return activations[name].double().T


def _widths(model_a: StateDict, model_b: StateDict, spec: PermutationSpec) -> dict[str, int]:
    """The number of units of every permutation in model B, after checking that nothing else differs."""
    if list(model_a) != list(model_b):
        raise ValueError(f"the models differ in their names or the order of them: {sorted(set(model_a) ^ set(model_b))[:3]}")
    widths: dict[str, int] = {}
    for key, axes in spec.axes.items():
        shape_a, shape_b = tuple(model_a[key].shape), tuple(model_b[key].shape)
        for axis, name in enumerate(axes):
            if name is None and shape_a[axis] != shape_b[axis]:
                shapes = f"shape {shape_b} in model B, {shape_a} in A"
                raise ValueError(f"{key!r} has {shapes}; axis {axis} holds no hidden units and must agree")
            if name is not None:
                width = shape_b[axis] // spec.repeats.get((key, axis), 1)
                if widths.setdefault(name, width) != width:
                    elsewhere = f"elsewhere {name!r} has {widths[name]} in model B"
                    raise ValueError(f"{key!r} has {width} units on axis {axis}, {elsewhere}")
    return widths
