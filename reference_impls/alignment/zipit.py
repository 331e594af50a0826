r"""ZipIt!, full and partial (stoica2024zipit).

Two networks trained on different tasks do not have the same features, so pairing each unit of one with a unit of the
other forces strangers together. ZipIt pools the units of both networks in every layer and pairs those that correlate
most, also two of the same network, until half as many are left. The pairs are averaged, and the next layer reads the
average in place of either. Stopping at some layer leaves the rest of both networks apart, as two heads on a shared
trunk.

Notation: n units a layer and model; U (2n, n) the unmerge matrix, 1 where a unit is in a group; M (n, 2n) the merge
matrix, which averages the groups; M = (M_A, M_B) and U = (U_A; U_B) their halves for each model.

Departures: no merging of more than two models. Attention heads, which the paper does not have, are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from reference_impls.core.permutation import PermutationSpec, check_activations, transform, unit_correlation
from reference_impls.core.state_dict import StateDict, Vector, check_same_structure, to_state_dict, to_vector


def zipit(
    model_a: StateDict,
    model_b: StateDict,
    activations_a: Mapping[str, Tensor],
    activations_b: Mapping[str, Tensor],
    spec: PermutationSpec,
    *,
    repeat: float = 0.3,
    within: float = 0.125,
) -> StateDict:
    r"""Merge two models by averaging their most correlated units, also units of one model.

    $$
    W_l = M_l^A\, W_l^A\, U_{l-1}^A + M_l^B\, W_l^B\, U_{l-1}^B, \qquad
    M_l = \big(U_l^\top U_l\big)^{-1} U_l^\top, \qquad
    U_l \text{ greedily from the correlations of } (X_l^A, X_l^B)
    $$

    Args:
        model_a: $\theta_A$.
        model_b: $\theta_B$.
        activations_a: $X^A$ by permutation name, each (samples, units); see `unit_activations`.
        activations_b: $X^B$, of the same samples.
        spec: which axes hold which units.
        repeat: $\alpha$, multiplies the correlations of a group at every merge, in [0, 1]; 1 lets groups grow freely,
            small values make pairs likelier. Default 0.3: the authors' function.
        within: $\beta$, share of all merges that may be within one model, in [0, 1]; 0 is a matching across. Default
            0.125: the authors' function.

    Returns:
        A new state dict, structured as `model_a`; the output layer is the average of both. Running statistics have to
        be measured anew.

    Raises:
        ValueError: models of another structure, activations that do not fit, options outside [0, 1], a spec with attention heads.

    Example:
        Units 1 and 2 of model A do the same, as do both of model B: with a budget for it each model is merged within itself.

        >>> spec = PermutationSpec({"first.weight": ("h", None), "head.weight": (None, "h")}, {"h": 2})
        >>> model_a = {"first.weight": torch.tensor([[1.0], [3.0]]), "head.weight": torch.tensor([[1.0, 1.0]])}
        >>> model_b = {"first.weight": torch.tensor([[5.0], [7.0]]), "head.weight": torch.tensor([[2.0, 2.0]])}
        >>> one, two = torch.tensor([[1.0, 1.0], [0.0, 0.0], [2.0, 2.0]]), torch.tensor([[1.0, 1.0], [2.0, 2.0], [0.0, 0.0]])
        >>> zipit(model_a, model_b, {"h": one}, {"h": two}, spec, within=1.0)
        {'first.weight': tensor([[2.],
                [6.]]), 'head.weight': tensor([[1., 2.]])}

    References:
        stoica2024zipit, the zip operation and its propagation; Sec. 4.3 (the hyperparameters alpha and beta).
    """
    everything, options = tuple(spec.sizes), {"repeat": repeat, "within": within}
    return partial_zipit(model_a, model_b, activations_a, activations_b, spec, zipped=everything, **options)[0]


def partial_zipit(
    model_a: StateDict,
    model_b: StateDict,
    activations_a: Mapping[str, Tensor],
    activations_b: Mapping[str, Tensor],
    spec: PermutationSpec,
    *,
    zipped: Sequence[str],
    repeat: float = 0.3,
    within: float = 0.125,
) -> tuple[StateDict, StateDict]:
    """Return the trunk with model A's head and the trunk with model B's: only the permutations in `zipped` are merged.

    The two state dicts agree wherever the trunk is. With all permutations zipped both are what `zipit` returns.
    """
    if not 0 <= repeat <= 1 or not 0 <= within <= 1:
        raise ValueError(f"repeat is {repeat} and within {within}; both are in [0, 1]")
    if spec.blocks:
        raise ValueError(f"the spec has attention heads {sorted(spec.blocks)}; ZipIt merges units, use a permutation for heads")
    check_same_structure(model_a, model_b)
    spec.check(model_a)
    whole = set(zipped) == set(spec.sizes)
    if unknown := sorted(set(zipped) - set(spec.sizes)):
        raise ValueError(f"zipped names {unknown}, which the spec lacks; it has {sorted(spec.sizes)}")
    for key, axes in spec.axes.items():
        reads = {name for axis, name in enumerate(axes) if name is not None and (key, axis) in spec.reads}
        writes = {name for name in axes if name is not None} - reads
        if writes & set(zipped) and reads - set(zipped):
            left = sorted(reads - set(zipped))
            raise ValueError(f"{key!r} writes {sorted(writes)} from {left}, which is not zipped; zip from the input on")

    check_activations(spec, activations_a, activations_b)
    merge: list[dict[str, Tensor]] = [{}, {}]  # M_A, M_B by name
    unmerge: list[dict[str, Tensor]] = [{}, {}]  # U_A', U_B'
    for name in zipped:
        z = torch.cat([activations_a[name], activations_b[name]], dim=1)  # (samples, 2n)
        u = zip_units(unit_correlation(z, z), repeat=repeat, within=within)
        m = (u / u.sum(dim=0)).T
        for i, (m_i, u_i) in enumerate(zip(m.chunk(2, dim=1), u.chunk(2, dim=0))):
            merge[i][name], unmerge[i][name] = m_i.to(_device(model_a)), u_i.T.to(_device(model_a))

    moved: list[Vector] = [
        {k: transform(spec, merge[i], k, v.double(), inverses=unmerge[i]) for k, v in to_vector(model).items()}
        for i, model in enumerate((model_a, model_b))
    ]
    out = [dict(moved[0]), dict(moved[1])]
    for key in moved[0]:
        written = {p for axis, p in enumerate(spec.axes[key]) if p is not None and (key, axis) not in spec.reads}
        if written & set(zipped):  # M_A W_A U_A + M_B W_B U_B
            out[0][key] = out[1][key] = moved[0][key] + moved[1][key]
        elif whole:  # nothing to choose from at the output: average
            out[0][key] = out[1][key] = (moved[0][key] + moved[1][key]) / 2
    return to_state_dict(out[0], like=model_a), to_state_dict(out[1], like=model_b)


def zip_units(correlation: Tensor, *, repeat: float = 0.3, within: float = 0.125) -> Tensor:
    """Return U, (2n, n): the units of two models, the most correlated ones of all grouped first, until n groups are left.

    Args:
        correlation: (2n, 2n), the n units of model A first.
        repeat: multiplies the correlations of a group after each merge, in [0, 1]. Default 0.3: as in `zipit`.
        within: share of the n merges that may be within one model, in [0, 1]. Default 0.125: as in `zipit`.
    """
    n = len(correlation) // 2
    similarity = correlation.double().cpu().clone()
    u = torch.eye(2 * n, dtype=torch.float64)
    alive = torch.ones(2 * n, dtype=torch.bool)
    allowed = ~torch.eye(2 * n, dtype=torch.bool)
    owner = torch.arange(2 * n) // n  # a group belongs to the model of its first unit
    budget = [int(within * n / 2 + 1e-4)] * 2  # beta = 1 lets each model spend half of the n merges on itself, which are all

    for _ in range(n):
        for model in (0, 1):
            if budget[model] <= 0:
                allowed[(owner == model)[:, None] & (owner == model)] = False
        pairs = alive[:, None] & alive & ~torch.eye(2 * n, dtype=torch.bool)
        choice = pairs & allowed if (pairs & allowed).any() else pairs  # budgets that leave nothing to merge give way
        best = int(similarity.masked_fill(~choice, -torch.inf).argmax())
        i, j = sorted((best // (2 * n), best % (2 * n)))
        u[:, i] += u[:, j]
        alive[j] = False
        budget[owner[i]] -= int(owner[i] == owner[j])
        similarity[i] = similarity[:, i] = repeat * torch.minimum(similarity[i], similarity[j])  # as close as its farthest unit
        allowed[i] = allowed[:, i] = allowed[i] & allowed[j]
    return u[:, alive]


def _device(model: StateDict) -> torch.device:
    return next(iter(model.values())).device
