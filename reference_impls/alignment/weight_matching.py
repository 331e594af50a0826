r"""Git Re-Basin: weight matching (ainsworth2023gitrebasin).

Two networks trained apart may compute with the same units in another order. Weight matching looks for the order of the
second network's units that brings its weights as close as possible to the first network's, without any data. All orders
at once are a hard problem; the order of one layer, with those of all the others held, is a linear assignment problem
that is solved exactly. So the layers are visited in random order, again and again, until no visit changes anything.

Notation: theta_A, theta_B the models, P_l the permutation of layer l, pi(theta_B) the second model with all its layers permuted,
S_l the similarity of the units of layer l: inner products of all the weights that write or read them.

Departures: none for linear and convolutional layers. Attention heads, which the paper leaves open, are one coordinate:
whole heads and the units within them are matched exactly and together. Running statistics are permuted with their units
and are no part of the similarity.
"""

from __future__ import annotations

import torch
from torch import Tensor

from reference_impls.core.permutation import PermutationSpec, identity, match_units, unit_similarity
from reference_impls.core.state_dict import StateDict, check_same_structure, to_vector


def weight_matching(
    model_a: StateDict,
    model_b: StateDict,
    spec: PermutationSpec,
    *,
    max_iter: int = 100,
    tol: float = 1e-12,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    r"""Find the permutations of model B's units that bring its weights closest to model A's.

    $$
    \arg\max_{\pi} \langle \theta_A, \pi(\theta_B) \rangle, \qquad
    P_l \leftarrow \arg\max_{P} \langle P, S_l \rangle, \qquad
    S_l = W_l^A P_{l-1} (W_l^B)^\top + (W_{l+1}^A)^\top P_{l+1} W_{l+1}^B
    $$

    Args:
        model_a: $\theta_A$, the model that stays as it is.
        model_b: $\theta_B$, the model whose units are to be reordered.
        spec: which permutation acts on which axis.
        max_iter: rounds over all layers at most, >= 0; 0 gives the identity. Default 100: the authors' code; the paper
            runs until nothing changes.
        tol: smallest gain of $\langle P, S_l \rangle$ that counts as a change, >= 0. Default 1e-12: the authors' code.
        generator: source of the order in which the layers are visited. Default None: seed 0.

    Returns:
        The permutations $P_l$ as index tensors by name. `apply_permutation(spec, permutations, model_b)` gives
        $\pi(\theta_B)$, to be averaged with model A.

    Raises:
        ValueError: models of another structure than each other's or the spec's, a negative max_iter or tol.

    Example:
        Model B is model A with its two hidden units exchanged. $S$ = [[1*2 + 5*6, 1 + 25], [2*2 + 6*6, 2*1 + 6*5]] =
        [[32, 26], [40, 32]], and 26 + 40 is more than 32 + 32.

        >>> spec = PermutationSpec({"first.weight": ("hidden", None), "second.weight": (None, "hidden")}, {"hidden": 2})
        >>> model_a = {"first.weight": torch.tensor([[1.0], [2.0]]), "second.weight": torch.tensor([[5.0, 6.0]])}
        >>> model_b = {"first.weight": torch.tensor([[2.0], [1.0]]), "second.weight": torch.tensor([[6.0, 5.0]])}
        >>> weight_matching(model_a, model_b, spec)
        {'hidden': tensor([1, 0])}

    References:
        ainsworth2023gitrebasin, Sec. 3.2 and Algorithm 1.
    """
    if max_iter < 0 or tol < 0:
        raise ValueError(f"max_iter is {max_iter} and tol {tol}; both are at least 0")
    check_same_structure(model_a, model_b)
    spec.check(model_a)
    generator = generator or torch.Generator().manual_seed(0)

    a, b = to_vector(model_a), to_vector(model_b)
    permutations = identity(spec, device=next(iter(a.values())).device)
    coordinates = spec.coordinates()
    for _ in range(max_iter):
        gain = False
        for index in torch.randperm(len(coordinates), generator=generator).tolist():  # Algorithm 1: layers in random order
            names = coordinates[index]
            similarities = {name: unit_similarity(spec, name, a, b, permutations) for name in names}
            best = match_units(spec, similarities, names)
            gain = gain or _total(similarities, best) > _total(similarities, permutations) + tol
            permutations.update(best)
        if not gain:
            break
    return permutations


def _total(similarities: dict[str, Tensor], permutations: dict[str, Tensor]) -> float:
    r"""$\sum_l \langle P_l, S_l \rangle$ over the layers of one coordinate."""
    return sum(s.gather(1, permutations[name][:, None]).sum().item() for name, s in similarities.items())
