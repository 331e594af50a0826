r"""Git Re-Basin: activation matching (ainsworth2023gitrebasin).

Units that do the same work fire on the same inputs. Activation matching runs both networks on some inputs and pairs, in
every layer by itself, the units whose activations lie closest, one to one: a single linear assignment problem per
layer, without any iteration.

Notation: Z_A, Z_B the activations of one layer, one row per sample and one column per unit; P the permutation of that layer.

Departures: none for linear and convolutional layers. Attention heads, which the paper leaves open, are matched as
wholes together with the units within them. Where to take the activations is the caller's choice: after the
nonlinearity, units that never fire can't be told apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from reference_impls.core.permutation import PermutationSpec, check_activations, nearest_permutations, unit_correlation


def activation_matching(
    activations_a: Mapping[str, Tensor],
    activations_b: Mapping[str, Tensor],
    spec: PermutationSpec,
    *,
    similarity: Literal["inner product", "correlation"] = "inner product",
) -> dict[str, Tensor]:
    r"""Find the permutations of model B's units that bring its activations closest to model A's.

    $$
    P = \arg\min_{P} \lVert Z_A - Z_B P^\top \rVert_F^2 = \arg\max_{P} \langle P, Z_A^\top Z_B \rangle
    $$

    Args:
        activations_a: $Z_A$ by permutation name, each (samples, units); see `unit_activations`.
        activations_b: $Z_B$, of the same samples in the same order.
        spec: which permutation acts on which axis.
        similarity: "inner product" of the activations, or their "correlation" over the samples, which a unit's mean and
            scale do not enter. Default "inner product": Sec. 3.1.

    Returns:
        The permutations $P$ as index tensors by name. `apply_permutation(spec, permutations, model_b)` gives the model
        to be averaged with A.

    Raises:
        ValueError: a layer without activations, other numbers of samples or units, an unknown similarity.

    Example:
        Two samples of two units; $Z_A^\top Z_B$ = [[1*0 + 0*3, 1*1 + 0*1], [0*0 + 2*3, 0*1 + 2*1]] = [[0, 1], [6, 2]].

        >>> import torch
        >>> spec = PermutationSpec({"first.bias": ("hidden",)}, {"hidden": 2})
        >>> activations_a = {"hidden": torch.tensor([[1.0, 0.0], [0.0, 2.0]])}
        >>> activations_b = {"hidden": torch.tensor([[0.0, 1.0], [3.0, 1.0]])}
        >>> activation_matching(activations_a, activations_b, spec)
        {'hidden': tensor([1, 0])}

    References:
        ainsworth2023gitrebasin, Sec. 3.1.
    """
    if similarity not in ("inner product", "correlation"):
        raise ValueError(f"similarity is {similarity!r}; it is one of inner product, correlation")
    check_activations(spec, activations_a, activations_b)

    similarities = {}
    for name in spec.sizes:
        z_a, z_b = activations_a[name].double(), activations_b[name].double()  # (samples, units)
        similarities[name] = unit_correlation(z_a, z_b) if similarity == "correlation" else z_a.T @ z_b
    return nearest_permutations(spec, similarities)
