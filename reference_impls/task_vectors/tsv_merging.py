r"""TSV-Merge (gargiulo2025tsv).

The change that fine-tuning makes to a weight matrix has few directions that matter, its leading singular vectors. Those of
different tasks overlap, and where they do, adding the matrices makes the tasks interfere. TSV-Merge keeps an equal share of
the singular vectors of every task, so that all of them together just fill the matrix, and turns them to the nearest set of
orthonormal vectors before it adds up.

Notation: Delta_t = theta_t - theta_0 the task matrix of one layer, U_t, S_t, V_t its k leading singular vectors and values,
T the number of tasks, U = [U_1 ... U_T] all of them, U_perp the nearest orthonormal set, alpha the scaling coefficient.

Departures: the paper keeps the integer part of r / T vectors of the r of a matrix; with more tasks than r that is none, here
it is at least one. Singular vectors of the value zero carry nothing and have no direction of their own: they are left out,
and directions that all tasks span only once are kept once, where the authors' code orthogonalises arbitrary vectors in their
place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from reference_impls.core.state_dict import StateDict, linear_combination, task_vector, to_state_dict, to_vector

SMALLEST = 1e-6  # singular values below this fraction of the largest are zero


def tsv_merging(
    base: StateDict,
    finetuned: Sequence[StateDict],
    *,
    scaling_coef: float = 1.0,
    lossless: bool = False,
    others: Literal["mean", "zero"] = "mean",
    exclude: Sequence[str] = (),
) -> StateDict:
    r"""Merge task matrices whose singular vectors have been made orthogonal across tasks.

    $$
    \Delta_t \approx U_t S_t V_t^\top, \qquad
    U_\perp = \arg\min_{Q^\top Q = I} \lVert Q - [U_1 \dots U_T]\rVert_F = P R^\top \ \text{ with }\ [U_1 \dots U_T] = P D R^\top,
    $$
    $$
    W = W_0 + \alpha\, U_\perp \operatorname{diag}(S_1 \dots S_T)\, V_\perp^\top
    $$

    Args:
        base: $\theta_0$, the pre-trained model that all the others were fine-tuned from.
        finetuned: $\theta_1 \dots \theta_T$, T >= 1.
        scaling_coef: $\alpha$. Default 1.0: the paper's value without validation data.
        lossless: True keeps all singular vectors of every task (authors' code, FusionBench); False the share of the rank
            that falls to a task. Default False: the paper.
        others: what happens to all that is no matrix (biases, norms, convolutions): the "mean" of the task vectors (authors'
            code, FusionBench) or "zero" (merge-and-rebase). Default "mean": the authors' code.
        exclude: names of matrices to be treated as `others`; the authors exclude CLIP's text projection. Default: none.

    Returns:
        A new state dict, structured as `base`.

    Raises:
        ValueError: no models, models of another structure, an unknown option.

    Example:
        Each task moves one entry, and their singular vectors are orthogonal already: nothing is lost in the sum.

        >>> models = [{"w": torch.diag(torch.tensor(d))} for d in ([3.0, 0.0], [0.0, 2.0])]
        >>> tsv_merging({"w": torch.zeros(2, 2)}, models)["w"].abs()
        tensor([[3., 0.],
                [0., 2.]])

    References:
        gargiulo2025tsv, the algorithm of TSV-Merge (low-rank approximation, concatenation, Procrustes orthogonalisation).
    """
    if others not in ("mean", "zero"):
        raise ValueError(f"others is {others!r}; it is one of mean, zero")
    if not finetuned:
        raise ValueError("received no fine-tuned models; at least one is needed")
    task_vectors = [task_vector(model, base) for model in finetuned]
    merged = linear_combination(task_vectors, [1 / len(finetuned) if others == "mean" else 0.0] * len(finetuned))
    for key, tensor in merged.items():
        if tensor.ndim == 2 and tensor.numel() and key not in exclude:
            merged[key] = _merge_matrices([tau[key].double() for tau in task_vectors], lossless)
    return to_state_dict(linear_combination([to_vector(base), merged], [1.0, scaling_coef]), like=base)


def _merge_matrices(deltas: Sequence[Tensor], lossless: bool) -> Tensor:
    full = min(deltas[0].shape)
    k = full if lossless else max(1, full // len(deltas))
    left, values, right = [], [], []
    for delta in deltas:
        u, s, vh = torch.linalg.svd(delta, full_matrices=False)
        kept = min(k, int((s > SMALLEST * s[0]).sum()))
        left.append(u[:, :kept])
        values.append(s[:kept])
        right.append(vh[:kept])
    u, s, vh = torch.cat(left, dim=1), torch.cat(values), torch.cat(right)  # (m, kT), (kT,), (kT, n)
    return _orthogonalise(u) * s @ _orthogonalise(vh) if len(s) else torch.zeros_like(deltas[0])


def _orthogonalise(x: Tensor) -> Tensor:
    """The nearest matrix whose singular values are all one, within the directions that x spans."""
    p, d, rh = torch.linalg.svd(x, full_matrices=False)
    kept = d > SMALLEST * d[0]
    return p[:, kept] @ rh[kept]
