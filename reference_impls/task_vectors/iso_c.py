r"""Isotropic merging, Iso-C and Iso-CTS (marczak2025iso).

Where task matrices are added up, a few directions that many tasks share dominate the sum, and what single tasks need lies in
its weak directions. Iso-C gives all directions of the sum the same strength. Iso-CTS keeps only the strongest of those
common directions and fills the rest of the matrix with the leading directions that each task has outside them, before the
strengths are made equal.

Notation: Delta_t = theta_t - theta_0 the task matrix of one layer, U, sigma, V the singular vectors and values of their sum,
r the number of singular values, T the number of tasks, k the number of common directions, alpha the scaling coefficient.

Departures: none in the formulas. A direction with the singular value zero has no vectors of its own and stays zero, where
the authors' code gives arbitrary vectors the mean strength, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from reference_impls.core.state_dict import StateDict, linear_combination, task_vector, to_state_dict, to_vector

SMALLEST = 1e-6  # singular values below this fraction of the largest are zero


def iso_c(
    base: StateDict,
    finetuned: Sequence[StateDict],
    *,
    scaling_coef: float = 1.0,
    others: Literal["mean", "zero"] = "mean",
    exclude: Sequence[str] = (),
) -> StateDict:
    r"""Merge task matrices by their sum, with all its singular values set to their mean.

    $$
    \sum_t \Delta_t = U \operatorname{diag}(\sigma)\, V^\top, \qquad
    \bar\sigma = \frac{1}{r} \sum_i \sigma_i, \qquad W = W_0 + \alpha\,\bar\sigma\, U V^\top
    $$

    Args:
        base: $\theta_0$, the pre-trained model that all the others were fine-tuned from.
        finetuned: $\theta_1 \dots \theta_T$, T >= 1.
        scaling_coef: $\alpha$. Default 1.0: FusionBench; the paper searches it on validation data.
        others: what happens to all that is no matrix (biases, norms, convolutions): the "mean" of the task vectors (authors'
            code, FusionBench) or "zero" (merge-and-rebase). Default "mean": the authors' code.
        exclude: names of matrices to be treated as `others`; the authors exclude CLIP's text projection. Default: none.

    Returns:
        A new state dict, structured as `base`.

    Raises:
        ValueError: no models, models of another structure, an unknown option.

    Example:
        The sum has the singular values 3 and 1; both become 2.

        >>> models = [{"w": torch.diag(torch.tensor(d))} for d in ([2.0, 0.0], [1.0, 1.0])]
        >>> iso_c({"w": torch.zeros(2, 2)}, models)["w"].abs()
        tensor([[2., 0.],
                [0., 2.]])

    References:
        marczak2025iso, the section on Iso-C.
    """
    return _merge(base, finetuned, _isotropic_sum, scaling_coef, others, exclude)


def iso_cts(
    base: StateDict,
    finetuned: Sequence[StateDict],
    *,
    common_fraction: float = 0.8,
    scaling_coef: float = 1.0,
    others: Literal["mean", "zero"] = "mean",
    exclude: Sequence[str] = (),
) -> StateDict:
    r"""Merge the common directions of all tasks with directions of each task, all at one strength.

    $$
    \bar\Delta_t = \Delta_t - U_{1:k} U_{1:k}^\top \Delta_t = U_t \Sigma_t V_t^\top, \qquad
    W = W_0 + \alpha\,\bar\sigma\, \operatorname{orth}[U_1^{1:s} \dots U_T^{1:s}\; U_{1:k}]\;
    \operatorname{orth}[V_1^{1:s} \dots V_T^{1:s}\; V_{1:k}]^\top, \qquad s = \frac{r - k}{T}
    $$

    where orth is the nearest orthonormal set and $\bar\sigma$ the mean of the singular values that belong to the vectors.

    Args:
        base: $\theta_0$, the pre-trained model that all the others were fine-tuned from.
        finetuned: $\theta_1 \dots \theta_T$, T >= 1.
        common_fraction: $k / r$, in [0, 1], rounded so that the rest divides evenly among the tasks. Default 0.8:
            FusionBench and the recorded call of the authors' code.
        scaling_coef: $\alpha$. Default 1.0: FusionBench; the paper searches it on validation data.
        others: as in `iso_c`. Default "mean": the authors' code.
        exclude: as in `iso_c`. Default: none.

    Returns:
        A new state dict, structured as `base`.

    Raises:
        ValueError: no models, models of another structure, common_fraction outside [0, 1], an unknown option.

    Example:
        One common direction, the first, of strength 4; what is left of the second task fills the second one, of
        strength 2: both get the mean 3.

        >>> models = [{"w": torch.diag(torch.tensor(d))} for d in ([4.0, 2.0],)]
        >>> iso_cts({"w": torch.zeros(2, 2)}, models, common_fraction=0.5)["w"].abs().round(decimals=4)
        tensor([[3., 0.],
                [0., 3.]])

    References:
        marczak2025iso, the section on Iso-CTS.
    """
    if not 0 <= common_fraction <= 1:
        raise ValueError(f"common_fraction is {common_fraction}; it is in [0, 1]")
    return _merge(base, finetuned, lambda deltas: _common_and_own(deltas, common_fraction), scaling_coef, others, exclude)


def _merge(
    base: StateDict,
    finetuned: Sequence[StateDict],
    rule: Callable[[Sequence[Tensor]], Tensor],
    scaling_coef: float,
    others: str,
    exclude: Sequence[str],
) -> StateDict:
    """Merge the task vectors of every matrix by the rule, those of other tensors by their mean or not at all."""
    if others not in ("mean", "zero"):
        raise ValueError(f"others is {others!r}; it is one of mean, zero")
    if not finetuned:
        raise ValueError("received no fine-tuned models; at least one is needed")
    task_vectors = [task_vector(model, base) for model in finetuned]
    merged = linear_combination(task_vectors, [1 / len(finetuned) if others == "mean" else 0.0] * len(finetuned))
    for key, tensor in merged.items():
        if tensor.ndim == 2 and tensor.numel() and key not in exclude:
            merged[key] = rule([tau[key].double() for tau in task_vectors])
    return to_state_dict(linear_combination([to_vector(base), merged], [1.0, scaling_coef]), like=base)


def _isotropic_sum(deltas: Sequence[Tensor]) -> Tensor:
    """The sum of the task vectors with the mean of its singular values in place of each."""
    u, s, vh = torch.linalg.svd(sum(deltas), full_matrices=False)
    return s.mean() * _orthogonalise(u * s @ vh)


def _common_and_own(deltas: Sequence[Tensor], common_fraction: float) -> Tensor:
    rank, tasks = min(deltas[0].shape), len(deltas)
    own = round((rank - int(rank * common_fraction)) / tasks)  # directions of each task
    own = min(own, rank // tasks)
    common = rank - own * tasks
    u, s, vh = torch.linalg.svd(sum(deltas), full_matrices=False)
    u_common, parts = u[:, :common], [(u[:, :common], s[:common], vh[:common])]
    for delta in deltas:  # what the task has outside the common directions
        u, s, vh = torch.linalg.svd(delta - u_common @ (u_common.T @ delta), full_matrices=False)
        parts.append((u[:, :own], s[:own], vh[:own]))
    s = torch.cat([part[1] for part in parts])
    kept = s > SMALLEST * s.max()
    left, right = torch.cat([part[0] for part in parts], dim=1)[:, kept], torch.cat([part[2] for part in parts])[kept]
    return s.mean() * _orthogonalise(left) @ _orthogonalise(right) if kept.any() else torch.zeros_like(deltas[0])


def _orthogonalise(x: Tensor) -> Tensor:
    """The nearest matrix whose singular values are all one, within the directions that x spans."""
    p, d, rh = torch.linalg.svd(x, full_matrices=False)
    kept = d > SMALLEST * d[0]
    return p[:, kept] @ rh[kept]
