r"""Frank-Wolfe weight matching (crisostomi2024c2m3).

Weight matching by coordinate descent depends on the order in which it visits the layers. Frank-Wolfe moves the
permutations of all layers at once: it relaxes them to doubly stochastic matrices, takes the gradient of the agreement
of the weights with respect to every one of them, finds the permutations that follow the gradients furthest (one
assignment per layer), and walks towards them as far as the agreement grows.

Notation: theta_A, theta_B the models, P_l the relaxed permutation of layer l, f the inner product of A's weights with
B's transformed ones.

Departures: the line search is exact, since f is a polynomial of the step: of degree two where a tensor has at most two
permuted axes. Attention heads, which the paper leaves open, are matched as wholes together with the units within them.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from reference_impls.core.permutation import PermutationSpec, as_matrices, identity, nearest_permutations, random_permutations
from reference_impls.core.permutation import transform, unit_similarity
from reference_impls.core.state_dict import StateDict, Vector, check_same_structure, to_vector


def frank_wolfe_matching(
    model_a: StateDict,
    model_b: StateDict,
    spec: PermutationSpec,
    *,
    start: Literal["identity", "barycenter", "random"] = "identity",
    max_iter: int = 100,
    tol: float = 1e-6,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    r"""Find the permutations of all of model B's layers at once, by Frank-Wolfe on the weight matching objective.

    $$
    f(P) = \sum_l \langle W_l^A,\; P_l W_l^B P_{l-1}^\top \rangle, \qquad
    \tilde P_l = \arg\max_{P} \langle P, \nabla_{P_l} f \rangle, \qquad
    P \leftarrow P + \alpha (\tilde P - P), \quad \alpha = \arg\max_{[0, 1]} f
    $$

    Args:
        model_a: $\theta_A$, the model that stays as it is.
        model_b: $\theta_B$, the model whose units are to be reordered.
        spec: which permutation acts on which axis.
        start: "identity", "barycenter" (all entries equal) or "random" permutations. Default "identity": a choice here.
        max_iter: steps at most, >= 0. Default 100; the paper leaves it open.
        tol: stop where f grows by less than this share of it, >= 0. Default 1e-6; the paper leaves it open.
        generator: source of random starts. Default None: seed 0.

    Returns:
        The permutations as index tensors by name, the nearest ones to the relaxed solution.

    Raises:
        ValueError: models of another structure than each other's or the spec's, a negative max_iter or tol, an unknown start.

    Example:
        Model B is model A with its two hidden units exchanged; the gradient is [[32, 26], [40, 32]], and 26 + 40 > 32 + 32.

        >>> spec = PermutationSpec({"first.weight": ("hidden", None), "second.weight": (None, "hidden")}, {"hidden": 2})
        >>> model_a = {"first.weight": torch.tensor([[1.0], [2.0]]), "second.weight": torch.tensor([[5.0, 6.0]])}
        >>> model_b = {"first.weight": torch.tensor([[2.0], [1.0]]), "second.weight": torch.tensor([[6.0, 5.0]])}
        >>> frank_wolfe_matching(model_a, model_b, spec)
        {'hidden': tensor([1, 0])}

    References:
        crisostomi2024c2m3, pairwise matching by Frank-Wolfe.
    """
    if max_iter < 0 or tol < 0:
        raise ValueError(f"max_iter is {max_iter} and tol {tol}; both are at least 0")
    if start not in ("identity", "barycenter", "random"):
        raise ValueError(f"start is {start!r}; it is one of identity, barycenter, random")
    check_same_structure(model_a, model_b)
    spec.check(model_a)

    a, b = ({key: tensor.double() for key, tensor in to_vector(model).items()} for model in (model_a, model_b))
    device = next(iter(a.values())).device
    relaxed = as_matrices(identity(spec, device))
    if start == "barycenter":
        relaxed = {name: torch.full_like(p, 1 / len(p)) for name, p in relaxed.items()}
    elif start == "random":
        drawn = random_permutations(spec, generator or torch.Generator().manual_seed(0))
        relaxed = {name: p.to(device) for name, p in as_matrices(drawn).items()}

    value = _agreement(spec, a, b, relaxed)
    for _ in range(max_iter):
        gradients = {name: unit_similarity(spec, name, a, b, relaxed) for name in spec.sizes}
        vertex = as_matrices(nearest_permutations(spec, gradients))
        middle, end = (_agreement(spec, a, b, _walk(relaxed, vertex, step)) for step in (0.5, 1.0))
        step = _best_step(value, middle, end)
        relaxed = _walk(relaxed, vertex, step)
        last, value = value, _agreement(spec, a, b, relaxed)
        if value - last <= tol * abs(last):
            break
    return nearest_permutations(spec, relaxed)


def _agreement(spec: PermutationSpec, a: Vector, b: Vector, maps: dict[str, Tensor]) -> float:
    """f: the inner product of A's weights with B's transformed ones."""
    return sum((a[key] * transform(spec, maps, key, b[key])).sum().item() for key in a if key not in spec.buffers)


def _walk(start: dict[str, Tensor], end: dict[str, Tensor], step: float) -> dict[str, Tensor]:
    return {name: start[name] + step * (end[name] - start[name]) for name in start}


def _best_step(f_0: float, f_half: float, f_1: float) -> float:
    """The maximum on [0, 1] of the parabola through three values."""
    curvature = 2 * (f_0 - 2 * f_half + f_1)  # f = f_0 + slope s + curvature s^2
    slope = f_1 - f_0 - curvature
    if curvature < 0:
        return min(1.0, max(0.0, -slope / (2 * curvature)))
    return 1.0 if f_1 > f_0 else 0.0
