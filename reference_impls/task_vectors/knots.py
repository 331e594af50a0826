r"""KnOTS (stoica2025knots).

Low-rank adapters of different tasks change a layer along different output directions, so that their entries do not
correspond, and rules that compare entry by entry, such as TIES, misfire. KnOTS joins the changes of all tasks side by side
and decomposes them together: all tasks then share one set of output directions, and differ in how their inputs drive them.
The merging rule is applied to these parts.

Notation: Delta_t the change of one layer (outputs, inputs) by task t, U the shared output directions, S their strengths, V_t
the part of the right singular vectors that belongs to task t.

Departures: none. Everything that is no matrix takes part in the merge as it is. In the paper all changes are adapters; here
they are the differences of whole models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from reference_impls.core.state_dict import StateDict, linear_combination, task_vector, to_state_dict, to_vector
from reference_impls.task_vectors.ties_merging import ties_merging


def knots(
    base: StateDict,
    finetuned: Sequence[StateDict],
    *,
    density: float = 0.2,
    scaling_coef: float = 0.6,
    merge: Literal["ties", "mean"] = "ties",
    eps: float = 1e-5,
) -> StateDict:
    r"""Merge models in a basis of output directions that their changes share.

    $$
    [\Delta_1 \dots \Delta_T] = U S\, [V_1^\top \dots V_T^\top], \qquad
    W = W_0 + \lambda\, U \operatorname{merge}(S V_1^\top, \dots, S V_T^\top)
    $$

    Args:
        base: $\theta_0$, the pre-trained model that all the others were fine-tuned from.
        finetuned: $\theta_1 \dots \theta_T$, T >= 1, at best with low-rank changes.
        density: of TIES, over all layers together, in (0, 1]. Default 0.2: the authors' configuration for ViT-B/32.
        scaling_coef: $\lambda$. Default 0.6: the same configuration; it is searched.
        merge: "ties" (KnOTS-TIES) or "mean", for which the shared basis changes nothing.
            Default "ties": the authors' configuration.
        eps: directions of a strength of at most eps are left out. Default 1e-5: authors' code.

    Returns:
        A new state dict, structured as `base`.

    Raises:
        ValueError: no models, models of another structure, density outside (0, 1], an unknown rule.

    Example:
        Both tasks drive the output direction (0.6, 0.8), by 5 and -10 times the input: in the shared basis that is one
        conflict, which the larger movement wins.

        >>> models = [{"w": torch.tensor([[3.0], [4.0]])}, {"w": torch.tensor([[-6.0], [-8.0]])}]
        >>> knots({"w": torch.zeros(2, 1)}, models, density=1.0, scaling_coef=1.0)["w"].flatten()
        tensor([-6., -8.])

    References:
        stoica2025knots, the section on KnOTS.
    """
    if merge not in ("ties", "mean"):
        raise ValueError(f"merge is {merge!r}; it is one of ties, mean")
    if not finetuned:
        raise ValueError("received no fine-tuned models; at least one is needed")
    aligned = [dict(task_vector(model, base)) for model in finetuned]
    directions = {}
    for key, tensor in aligned[0].items():
        if tensor.ndim == 2 and tensor.numel():
            u, s, parts = shared_basis([delta[key] for delta in aligned], eps)
            directions[key] = u
            for delta, part in zip(aligned, parts):
                delta[key] = s[:, None] * part
    if merge == "ties":
        zero = linear_combination(aligned[:1], [0.0])
        merged = dict(ties_merging(zero, aligned, density=density))
    else:
        merged = linear_combination(aligned, [1 / len(aligned)] * len(aligned))
    merged |= {key: u @ merged[key] for key, u in directions.items()}
    return to_state_dict(linear_combination([to_vector(base), merged], [1.0, scaling_coef]), like=base)


def shared_basis(matrices: Sequence[Tensor], eps: float = 1e-5) -> tuple[Tensor, Tensor, list[Tensor]]:
    r"""Return the shared output directions, their strengths and each task's part: $\Delta_t = U S V_t^\top$.

    Args:
        matrices: $\Delta_t$, each (outputs, inputs).
        eps: directions of a strength of at most eps are left out. Default 1e-5: authors' code.

    Returns:
        U (outputs, k), S (k,) in falling order, and for every task (k, inputs).

    Example:
        >>> u, s, parts = shared_basis([torch.tensor([[3.0], [0.0]]), torch.tensor([[4.0], [0.0]])])
        >>> s, [(u * s @ part).flatten() for part in parts]
        (tensor([5.]), [tensor([3., 0.]), tensor([4., 0.])])
    """
    joined = torch.cat([matrix.double() for matrix in matrices], dim=1)  # (outputs, T inputs)
    u, s, vh = torch.linalg.svd(joined, full_matrices=False)
    kept = s > eps
    u, s, vh = (x.to(matrices[0]) for x in (u[:, kept], s[kept], vh[kept]))
    return u, s, list(vh.split(matrices[0].shape[1], dim=1))
