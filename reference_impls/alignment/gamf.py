r"""GAMF, fusion by graph matching with graduated assignment (liu2022deep).

A network is a graph: its units are the nodes, its weights the edges. Fusing networks then means matching several graphs
consistently, where the match of two units is as good as the matches of the edges between them. Graduated assignment
solves it by annealing: from what the current soft matching says of the neighbours, score every pair of units, turn the
scores into a doubly stochastic matrix at some temperature, and cool down until the matching is a permutation. Every
model is matched to a common set of units, so that all matchings agree.

Notation: W^p the weights of model p, X^p_l the soft matching of the units of its layer l to the common units, V^p_l
their scores, tau the temperature.

Departures: the similarity of two edges is the product of their weights, which makes the scores matrix products; the
paper's own kernel on the difference of two weights is not confirmed. The first model's units are the common ones.
Scores are divided by their largest magnitude, so that temperatures have one meaning in every layer. Units in heads are
matched as wholes at the end only.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from reference_impls.core.permutation import PermutationSpec, apply_permutation, as_matrices, identity, nearest_permutations
from reference_impls.core.permutation import transform, unit_rows
from reference_impls.core.state_dict import StateDict, check_same_structure, linear_combination, to_state_dict, to_vector
from reference_impls.core.transport import log_sinkhorn


def gamf(
    models: Sequence[StateDict],
    spec: PermutationSpec,
    *,
    temperature: float = 0.5,
    decay: float = 0.8,
    final_temperature: float = 0.01,
    max_iter: int = 5,
) -> StateDict:
    r"""Average n models after matching their units by graduated assignment.

    $$
    V_l^p = \sum_{q \ne p} \sum_{(l, m)} X_l^q W^q (X_m^q)^\top\, X_m^p (W^p)^\top, \qquad
    X_l^p \leftarrow S(V_l^p / \tau), \qquad \tau \leftarrow \beta \tau, \qquad
    \theta = \frac1n \sum_p \pi_p(\theta_p)
    $$

    with $S$ Sinkhorn's scaling of rows and columns and the sum over the tensors that join layer l with a layer m.

    Args:
        models: $\theta_1 \dots \theta_n$, n >= 1.
        spec: which permutation acts on which axis.
        temperature: $\tau$ at the start, in units of the largest score, > 0. Default 0.5; the paper's depends on its kernel.
        decay: $\beta$, factor of the temperature, in (0, 1). Default 0.8; the paper leaves it to its code.
        final_temperature: cooling stops below it, > 0. Default 0.01: a choice here.
        max_iter: rounds over all models and layers at each temperature, >= 1. Default 5: a choice here.

    Returns:
        A new state dict, structured as the models, in the order of the first model's units.

    Raises:
        ValueError: no models, models of another structure than each other's or the spec's, an option out of range.

    Example:
        The second model is the first with its two units exchanged.

        >>> spec = PermutationSpec({"first.weight": ("hidden", None), "second.weight": (None, "hidden")}, {"hidden": 2})
        >>> one = {"first.weight": torch.tensor([[1.0], [2.0]]), "second.weight": torch.tensor([[5.0, 6.0]])}
        >>> two = {"first.weight": torch.tensor([[2.0], [1.0]]), "second.weight": torch.tensor([[6.0, 5.0]])}
        >>> gamf([one, two], spec)
        {'first.weight': tensor([[1.],
                [2.]]), 'second.weight': tensor([[5., 6.]])}

    References:
        liu2022deep, fusion as graph matching, graduated assignment, several models.
    """
    permutations = graduated_assignment(
        models, spec, temperature=temperature, decay=decay, final_temperature=final_temperature, max_iter=max_iter
    )
    ordered = [to_vector(apply_permutation(spec, p, model)) for p, model in zip(permutations, models)]
    return to_state_dict(linear_combination(ordered, [1 / len(models)] * len(models)), like=models[0])


def graduated_assignment(
    models: Sequence[StateDict],
    spec: PermutationSpec,
    *,
    temperature: float = 0.5,
    decay: float = 0.8,
    final_temperature: float = 0.01,
    max_iter: int = 5,
) -> list[dict[str, Tensor]]:
    """Return the permutations that bring every model into the order of the first. Arguments as in `gamf`."""
    if temperature <= 0 or final_temperature <= 0 or not 0 < decay < 1 or max_iter < 1:
        given = f"temperature is {temperature}, final_temperature {final_temperature}, decay {decay}, max_iter {max_iter}"
        raise ValueError(f"{given}; above 0, above 0, in (0, 1) and at least 1 are needed")
    check_same_structure(*models)
    spec.check(models[0])
    vectors = [{k: v.double() for k, v in to_vector(m).items() if k not in spec.buffers} for m in models]
    device = next(iter(vectors[0].values())).device

    soft = [as_matrices(identity(spec, device))]  # the first model is held: its units are the common ones
    soft += [{name: torch.full_like(x, 1 / len(x)) for name, x in soft[0].items()} for _ in models[1:]]
    moved = [{k: transform(spec, x, k, w) for k, w in vector.items()} for x, vector in zip(soft, vectors)]
    total = {k: sum(m[k] for m in moved) for k in vectors[0]}
    while temperature > final_temperature and len(models) > 1:
        for _ in range(max_iter):
            for p, vector in enumerate(vectors[1:], start=1):
                for name in spec.sizes:
                    scores = _scores(spec, name, vector, soft[p], {k: total[k] - moved[p][k] for k in total})
                    scale = scores.abs().max()
                    soft[p][name] = log_sinkhorn(scores / (temperature * scale if scale > 0 else 1.0)).exp()
                    for key, _axis in spec.places(name):  # what this matching changes
                        if key in vector:
                            new = transform(spec, soft[p], key, vector[key])
                            total[key], moved[p][key] = total[key] - moved[p][key] + new, new
        temperature *= decay

    return [nearest_permutations(spec, matrices) for matrices in soft]


def _scores(spec: PermutationSpec, name: str, own: dict, maps: dict[str, Tensor], others: dict) -> Tensor:
    """How well every unit of a model's layer fits every common unit, given how the neighbouring layers are matched now."""
    return sum(
        unit_rows(spec, key, axis, others[key]) @ unit_rows(spec, key, axis, transform(spec, maps, key, own[key], skip=axis)).T
        for key, axis in spec.places(name)
        if key in own
    )
