r"""MuDSC, merging under dual-space constraints (xu2024mudsc).

Units that look alike in their weights need not fire alike, and units that fire alike on some data need not have like
weights; matchings in one space are poor in the other. MuDSC matches units by both at once: a convex combination of
their similarity in weights, which depends on the order of the neighbouring layers and is recomputed as they change, and
of the similarity of their activations, which does not.

Notation: S_w, S_z the similarities of the units of a layer in weights and in activations, b the balance, P the
permutation of the layer.

Departures: the permutation variant only (the paper also zips). Both similarities are scaled to [-1, 1], so that the
balance has a meaning: cosines of the units' weights and correlations of their activations; the paper's own scaling is
not confirmed.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from reference_impls.core.permutation import PermutationSpec, check_activations, identity, match_units, unit_correlation
from reference_impls.core.permutation import unit_similarity
from reference_impls.core.state_dict import StateDict, check_same_structure, to_vector


def mudsc(
    model_a: StateDict,
    model_b: StateDict,
    activations_a: Mapping[str, Tensor],
    activations_b: Mapping[str, Tensor],
    spec: PermutationSpec,
    *,
    balance: float = 0.5,
    max_iter: int = 100,
    tol: float = 1e-12,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    r"""Find the permutations of model B's units that are alike in weights and in activations at once.

    $$
    P_l \leftarrow \arg\max_P \big\langle P,\; b\, S_w^l(P_{l-1}, P_{l+1}) + (1 - b)\, S_z^l \big\rangle
    \quad\text{in random order until nothing changes}
    $$

    Args:
        model_a: $\theta_A$, the model that stays as it is.
        model_b: $\theta_B$, the model whose units are to be reordered.
        activations_a: by permutation name, each (samples, units); see `unit_activations`.
        activations_b: the same for model B, of the same samples.
        spec: which permutation acts on which axis; heads move as wholes.
        balance: $b$, weight of the similarity of weights, in [0, 1]; 0 matches activations only, 1 weights only.
            Default 0.5: both alike; the paper tunes it.
        max_iter: rounds over all layers at most, >= 0. Default 100: a choice here.
        tol: smallest gain that counts as a change, >= 0. Default 1e-12: a choice here.
        generator: source of the order in which the layers are visited. Default None: seed 0.

    Returns:
        The permutations as index tensors by name.

    Raises:
        ValueError: models of another structure, activations that do not fit, balance outside [0, 1], a negative max_iter or tol.

    Example:
        The weights cannot tell the two units apart, the activations can.

        >>> spec = PermutationSpec({"first.weight": ("h", None)}, {"h": 2})
        >>> model = {"first.weight": torch.ones(2, 1)}
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
        >>> mudsc(model, model, {"h": x}, {"h": x.flip(1)}, spec)
        {'h': tensor([1, 0])}

    References:
        xu2024mudsc, dual-space constraints.
    """
    if not 0 <= balance <= 1 or max_iter < 0 or tol < 0:
        raise ValueError(f"balance is {balance}, max_iter {max_iter}, tol {tol}; in [0, 1], at least 0 and at least 0 are needed")
    check_same_structure(model_a, model_b)
    spec.check(model_a)
    check_activations(spec, activations_a, activations_b)
    generator = generator or torch.Generator().manual_seed(0)

    a, b = to_vector(model_a), to_vector(model_b)
    fire_alike = {name: unit_correlation(activations_a[name], activations_b[name]) for name in spec.sizes}
    lengths = {name: (_norms(spec, name, a), _norms(spec, name, b)) for name in spec.sizes}
    permutations = identity(spec, next(iter(a.values())).device)
    coordinates = spec.coordinates()
    for _ in range(max_iter):
        gain = False
        for index in torch.randperm(len(coordinates), generator=generator).tolist():
            similarities = {}
            for name in coordinates[index]:
                of_a, of_b = lengths[name]
                cosine = unit_similarity(spec, name, a, b, permutations) / (of_a[:, None] * of_b).clamp(min=1e-30)
                similarities[name] = balance * cosine + (1 - balance) * fire_alike[name].to(cosine.device)
            best = match_units(spec, similarities, coordinates[index])
            value = lambda p: sum(s.gather(1, p[n][:, None]).sum().item() for n, s in similarities.items())  # noqa: B023, E731
            gain = gain or value(best) > value(permutations) + tol
            permutations.update(best)
        if not gain:
            break
    return permutations


def _norms(spec: PermutationSpec, name: str, model: Mapping[str, Tensor]) -> Tensor:
    """The length of every unit's weights, (units,)."""
    return unit_similarity(spec, name, model, model, {}).diagonal().clamp(min=0).sqrt()
