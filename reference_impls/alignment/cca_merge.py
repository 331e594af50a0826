r"""CCA Merge (horoi2024harmony).

What one network computes in one unit, another may spread over several. Canonical correlation analysis finds the
directions in the two networks' activations that correlate most, not just pairs of units. CCA Merge turns them into an
invertible linear map from the second network's units to the first's, carries the second network over with it (each
layer by the map, the next one by its inverse), and averages.

Notation: X_A, X_B centred activations of a layer, one row per sample; S_AA, S_BB, S_AB their covariances; T the map
from units of B to units of A.

Departures: a ridge on the covariances. The nonlinearity between the layers does not commute with T unless T is a
permutation with positive scales, as in the paper. Attention heads are refused: mixing units of different heads changes
what attention computes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from reference_impls.core.permutation import PermutationSpec, check_activations, transform
from reference_impls.core.state_dict import StateDict, check_same_structure, linear_combination, to_state_dict, to_vector


def cca_merge(
    model_a: StateDict,
    model_b: StateDict,
    activations_a: Mapping[str, Tensor],
    activations_b: Mapping[str, Tensor],
    spec: PermutationSpec,
    *,
    t: float = 0.5,
    eps: float = 0.1,
) -> StateDict:
    r"""Carry model B over to model A's units by canonical correlation analysis, and average.

    $$
    S_{AA}^{-1/2} S_{AB} S_{BB}^{-1/2} = U \Sigma V^\top, \qquad
    T = \big(P_B P_A^{-1}\big)^\top = S_{AA}^{1/2}\, U V^\top S_{BB}^{-1/2}, \qquad
    W_l = (1-t)\, W_l^A + t\; T_l\, W_l^B\, T_{l-1}^{-1}
    $$

    with the canonical directions $P_A = S_{AA}^{-1/2} U$ and $P_B = S_{BB}^{-1/2} V$.

    Args:
        model_a: $\theta_A$.
        model_b: $\theta_B$.
        activations_a: $X_A$ by permutation name, each (samples, units); see `unit_activations`.
        activations_b: $X_B$, of the same samples.
        spec: which axes hold which units.
        t: share of model B, in [0, 1]. Default 0.5: the paper's average.
        eps: ridge on both covariances, as a share of their mean variance, > 0. Default 0.1, which suits the toy zoo;
            the paper leaves it to its code.

    Returns:
        A new state dict, structured as `model_a`. Running statistics have to be measured anew.

    Raises:
        ValueError: models of another structure, activations that do not fit, t outside [0, 1], eps not above 0, a spec
        with attention heads.

    Example:
        The only unit of model B is half as large as A's; T is 2 (up to the ridge), and its weights become those of A.

        >>> spec = PermutationSpec({"first.weight": ("h", None), "head.weight": (None, "h")}, {"h": 1})
        >>> model_a = {"first.weight": torch.tensor([[2.0]]), "head.weight": torch.tensor([[3.0]])}
        >>> model_b = {"first.weight": torch.tensor([[1.0]]), "head.weight": torch.tensor([[6.0]])}
        >>> x = torch.tensor([[-1.0], [1.0]])
        >>> cca_merge(model_a, model_b, {"h": 2 * x}, {"h": x}, spec)
        {'first.weight': tensor([[2.]]), 'head.weight': tensor([[3.]])}

    References:
        horoi2024harmony, merging with canonical correlation analysis.
    """
    if not 0 <= t <= 1 or eps <= 0:
        raise ValueError(f"t is {t} and eps {eps}; in [0, 1] and above 0 are needed")
    if spec.blocks:
        raise ValueError(f"the spec has attention heads {sorted(spec.blocks)}; CCA mixes units, use a permutation for heads")
    check_same_structure(model_a, model_b)
    spec.check(model_a)
    check_activations(spec, activations_a, activations_b)
    maps, inverses = {}, {}
    for name in spec.sizes:
        found = _map(activations_a[name].double(), activations_b[name].double(), eps)
        maps[name], inverses[name] = (m.to(next(iter(model_a.values())).device) for m in found)

    a, b = to_vector(model_a), to_vector(model_b)
    carried = {key: transform(spec, maps, key, b[key].double(), inverses=inverses).to(b[key].dtype) for key in b}
    return to_state_dict(linear_combination([a, carried], [1 - t, t]), like=model_a)


def _map(x_a: Tensor, x_b: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """T, and the transpose of its inverse, which acts on the columns that read the units."""
    x_a, x_b = x_a - x_a.mean(dim=0), x_b - x_b.mean(dim=0)
    root_a, unroot_a = _roots(x_a.T @ x_a / len(x_a), eps)
    root_b, unroot_b = _roots(x_b.T @ x_b / len(x_b), eps)
    u, _, vh = torch.linalg.svd(unroot_a @ (x_a.T @ x_b / len(x_a)) @ unroot_b)
    return root_a @ u @ vh @ unroot_b, unroot_a @ u @ vh @ root_b


def _roots(covariance: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The symmetric square root of a covariance with its ridge, and the inverse of that."""
    ridge = eps * covariance.diagonal().mean()
    values, vectors = torch.linalg.eigh(covariance + torch.diag((ridge if ridge > 0 else ridge + 1).expand(len(covariance))))
    root = values.clamp(min=0).sqrt().clamp(min=1e-12)
    return vectors * root @ vectors.T, vectors / root @ vectors.T
