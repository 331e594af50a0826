r"""Covariance-informed weight matching (ferbach2024proving).

Weights differ in directions that no input ever takes, and such differences do not matter. Measuring the distance
between two units' weights by what they do on the layer's inputs, that is in the metric of the inputs' covariance,
counts only the directions that the data excites. Going from the input to the output, every layer is then one assignment
problem.

Notation: W_A, W_B the weights of a layer, Sigma the second moments of its inputs, P_l its permutation.

Departures: Sigma is the mean of both models' second moments, B's in the order of A; the paper's choice between the two
is not confirmed. Biases and normalisations do not enter; tensors without a Gram matrix (convolutions, embeddings) count
by their plain inner product.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from reference_impls.core.permutation import PermutationSpec, match_units, transform, unit_rows
from reference_impls.core.state_dict import StateDict, Vector, check_same_structure, to_vector


def covariance_matching(
    model_a: StateDict, model_b: StateDict, spec: PermutationSpec, grams: Sequence[Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    r"""Find the permutations of model B's units in the metric of the inputs that each layer sees.

    $$
    P_l = \arg\min_P \big\lVert (W_l^A - P\, W_l^B P_{l-1}^\top)\, \Sigma_{l-1}^{1/2} \big\rVert_F^2
        = \arg\max_P \big\langle P,\; W_l^A\, \Sigma_{l-1}\, (W_l^B P_{l-1}^\top)^\top \big\rangle, \qquad
    \Sigma_{l-1} = \tfrac12 \big(G_{l-1}^A + P_{l-1} G_{l-1}^B P_{l-1}^\top\big)
    $$

    Args:
        model_a: $\theta_A$, the model that stays as it is.
        model_b: $\theta_B$, the model whose units are to be reordered.
        spec: which permutation acts on which axis.
        grams: $G^A$ and $G^B$, the Gram matrices (inputs, inputs) of the layers' inputs by weight name, for model A and
            model B; further ones are not used. See `gram_matrices`.

    Returns:
        The permutations as index tensors by name.

    Raises:
        ValueError: models of another structure than each other's or the spec's, fewer than two dicts of Gram matrices,
        one of another size.

    Example:
        The second input never varies. In plain weights B's first unit (1, 9) is closer to A's second unit (2, 9); on
        the data it is A's first.

        >>> spec = PermutationSpec({"first.weight": ("h", None)}, {"h": 2})
        >>> model_a = {"first.weight": torch.tensor([[1.0, 0.0], [2.0, 9.0]])}
        >>> model_b = {"first.weight": torch.tensor([[1.0, 9.0], [2.0, 0.0]])}
        >>> gram = {"first.weight": torch.tensor([[1.0, 0.0], [0.0, 0.0]])}
        >>> covariance_matching(model_a, model_b, spec, [gram, gram])
        {'h': tensor([0, 1])}

    References:
        ferbach2024proving, the section on weight matching with the covariance of the activations.
    """
    check_same_structure(model_a, model_b)
    spec.check(model_a)
    if len(grams) < 2:
        raise ValueError(f"received {len(grams)} dicts of Gram matrices; two are needed, for model A and model B")
    a, b = to_vector(model_a), to_vector(model_b)
    found: dict[str, Tensor] = {}
    for names in spec.coordinates():  # from the input to the output
        similarities = {name: _similarity(spec, name, a, b, grams, found) for name in names}
        found |= match_units(spec, similarities, names)
    return {name: found[name] for name in spec.sizes}


def _similarity(
    spec: PermutationSpec, name: str, a: Vector, b: Vector, grams: Sequence[Mapping[str, Tensor]], found: Mapping[str, Tensor]
) -> Tensor:
    """W_A Sigma W_B' over the weight matrices that write the units and whose inputs are fixed or already matched."""
    total = torch.zeros(spec.sizes[name], spec.sizes[name], dtype=torch.float64, device=next(iter(a.values())).device)
    for key, axis in spec.places(name):
        others = [p for i, p in enumerate(spec.axes[key]) if i != axis and p is not None]
        if a[key].dim() < 2 or (key, axis) in spec.reads or not all(p in found for p in others):
            continue
        rows_a = unit_rows(spec, key, axis, a[key].double())
        rows_b = unit_rows(spec, key, axis, transform(spec, found, key, b[key].double(), skip=axis))
        total += rows_a @ _second_moments(spec, key, rows_a.shape[1], grams, found).to(total.device) @ rows_b.T
    return total


def _second_moments(
    spec: PermutationSpec, key: str, inputs: int, grams: Sequence[Mapping[str, Tensor]], found: Mapping[str, Tensor]
) -> Tensor:
    """Sigma in the order of model A's inputs; the identity where none was measured."""
    if key not in grams[0] or key not in grams[1]:
        return torch.eye(inputs, dtype=torch.float64)
    g_a, g_b = (g[key].double() for g in grams[:2])
    if g_a.shape != (inputs, inputs) or g_b.shape != (inputs, inputs):
        shapes = f"{tuple(g_a.shape)} and {tuple(g_b.shape)}"
        raise ValueError(f"the Gram matrices of {key!r} have shapes {shapes}; ({inputs}, {inputs}) is needed")
    read = next((p for axis, p in enumerate(spec.axes[key]) if (key, axis) in spec.reads), None)
    if read is not None:
        column = PermutationSpec({key: (None, read)}, spec.sizes, {(key, 1): spec.repeats.get((key, 1), 1)})
        g_b = transform(column, found, key, transform(column, found, key, g_b).T)
    return (g_a + g_b) / 2
