r"""C2M3, cycle-consistent multi-model merging (crisostomi2024c2m3).

Matching many models in pairs contradicts itself: going from A to B to C and back to A, a unit may come home as another.
C2M3 gives every model one permutation into a common universe instead, so that every map between two models passes
through it and all round trips are the identity. All permutations are found at once by Frank-Wolfe on the summed
agreement of all pairs; the models are averaged there.

Notation: theta_p the models, P_l^p the permutation of layer l that takes model p to the universe, pi_p(theta_p) the
model in the universe.

Departures: the paper ends with REPAIR on data, here a step of its own (see the record's note). The line search takes the best of
1,001 steps on the exact polynomial of the objective.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from reference_impls.core.permutation import PermutationSpec, apply_permutation, as_matrices, identity, nearest_permutations
from reference_impls.core.permutation import transform, unit_rows
from reference_impls.core.state_dict import StateDict, Vector, check_same_structure, linear_combination, to_state_dict, to_vector

Maps = list[dict[str, Tensor]]  # one per model


def c2m3(models: Sequence[StateDict], spec: PermutationSpec, *, max_iter: int = 100, tol: float = 1e-6) -> StateDict:
    r"""Average n models in a common universe of units.

    $$
    \max_{\{P^p\}} \sum_{p < q} \big\langle \pi_p(\theta_p),\, \pi_q(\theta_q) \big\rangle, \qquad
    \pi_p(\theta_p)_l = P_l^p\, W_l^p\, (P_{l-1}^p)^\top, \qquad
    \theta = \frac1n \sum_p \pi_p(\theta_p)
    $$

    Args:
        models: $\theta_1 \dots \theta_n$, n >= 1.
        spec: which permutation acts on which axis.
        max_iter: Frank-Wolfe steps at most, >= 0. Default 100; the paper leaves it open.
        tol: stop where the objective grows by less than this share of it, >= 0. Default 1e-6; the paper leaves it open.

    Returns:
        A new state dict, structured as the models: their average in the universe.

    Raises:
        ValueError: no models, models of another structure than each other's or the spec's, a negative max_iter or tol.

    Example:
        The second model is the first with its two units exchanged; in the universe they are the same.

        >>> spec = PermutationSpec({"first.weight": ("hidden", None), "second.weight": (None, "hidden")}, {"hidden": 2})
        >>> one = {"first.weight": torch.tensor([[1.0], [2.0]]), "second.weight": torch.tensor([[5.0, 6.0]])}
        >>> two = {"first.weight": torch.tensor([[2.0], [1.0]]), "second.weight": torch.tensor([[6.0, 5.0]])}
        >>> merged = c2m3([one, two], spec)
        >>> sorted(zip(merged["first.weight"].flatten().tolist(), merged["second.weight"].flatten().tolist()))
        [(1.0, 5.0), (2.0, 6.0)]

    References:
        crisostomi2024c2m3, Algorithm 1 (the Frank-Wolfe steps of all models) and the universe they map to.
    """
    permutations = universe_permutations(models, spec, max_iter=max_iter, tol=tol)
    universe = [to_vector(apply_permutation(spec, p, model)) for p, model in zip(permutations, models)]
    return to_state_dict(linear_combination(universe, [1 / len(models)] * len(models)), like=models[0])


def universe_permutations(
    models: Sequence[StateDict], spec: PermutationSpec, *, max_iter: int = 100, tol: float = 1e-6
) -> list[dict[str, Tensor]]:
    """Return the permutations that take every model to the universe. Arguments as in `c2m3`.

    Model q is brought into the order of model p by `compose(invert(permutations[p]), permutations[q])`.
    """
    if max_iter < 0 or tol < 0:
        raise ValueError(f"max_iter is {max_iter} and tol {tol}; both are at least 0")
    check_same_structure(*models)
    spec.check(models[0])
    vectors = [{k: v.double() for k, v in to_vector(m).items() if k not in spec.buffers} for m in models]
    device = next(iter(vectors[0].values())).device

    maps = [as_matrices(identity(spec, device)) for _ in models]
    value = _agreement(spec, vectors, maps)
    for _ in range(max_iter):
        vertices = _vertices(spec, vectors, maps)
        step = _best_step([_agreement(spec, vectors, _walk(maps, vertices, s / 4)) for s in range(5)])
        maps = _walk(maps, vertices, step)
        last, value = value, _agreement(spec, vectors, maps)
        if value - last <= tol * abs(last):
            break
    return [nearest_permutations(spec, matrices) for matrices in maps]


def _in_universe(spec: PermutationSpec, vectors: Sequence[Vector], maps: Maps) -> list[Vector]:
    return [{key: transform(spec, m, key, tensor) for key, tensor in v.items()} for v, m in zip(vectors, maps)]


def _agreement(spec: PermutationSpec, vectors: Sequence[Vector], maps: Maps) -> float:
    r"""Sum over pairs, by $2\sum_{p<q} \langle u_p, u_q \rangle = \lVert \sum u \rVert^2 - \sum \lVert u \rVert^2$."""
    universe = _in_universe(spec, vectors, maps)
    both = 0.0
    for key in vectors[0]:
        all_of_key = torch.stack([u[key] for u in universe])  # (models, ...)
        both += all_of_key.sum(dim=0).square().sum().item() - all_of_key.square().sum().item()
    return both / 2


def _vertices(spec: PermutationSpec, vectors: Sequence[Vector], maps: Maps) -> Maps:
    """For every model, the permutations furthest along the gradient of the agreement."""
    universe = _in_universe(spec, vectors, maps)
    total = {key: sum(u[key] for u in universe) for key in vectors[0]}
    out = []
    for vector, own, matrices in zip(vectors, universe, maps):
        gradients = {}
        for name in spec.sizes:
            gradients[name] = sum(
                unit_rows(spec, key, axis, total[key] - own[key])
                @ unit_rows(spec, key, axis, transform(spec, matrices, key, vector[key], skip=axis)).T
                for key, axis in spec.places(name)
                if key in vector
            )
        out.append(as_matrices(nearest_permutations(spec, gradients)))
    return out


def _walk(start: Maps, end: Maps, step: float) -> Maps:
    return [{name: a[name] + step * (b[name] - a[name]) for name in a} for a, b in zip(start, end)]


def _best_step(values: list[float]) -> float:
    """The maximum on [0, 1] of the polynomial of degree four through the values at 0, 1/4, 1/2, 3/4 and 1."""
    powers = torch.arange(5, dtype=torch.float64)
    at = torch.linspace(0, 1, 5, dtype=torch.float64)
    coefficients = torch.linalg.solve(at[:, None] ** powers, torch.tensor(values, dtype=torch.float64))
    steps = torch.linspace(0, 1, 1001, dtype=torch.float64)
    return steps[(steps[:, None] ** powers @ coefficients).argmax()].item()
