r"""PEM composition: arithmetic of parameter-efficient modules (zhang2023composing).

Small modules such as LoRA or (IA)^3, trained from one initialisation on one base model, can be added and negated like
task vectors, without the base: a weighted sum of their parameters combines skills, and a module turned round forgets
its own. What turns a module round depends on its kind: of a LoRA one factor changes its sign, an (IA)^3 vector is
mirrored at one.

Notation: A_t (r, n) and B_t (m, r) the factors of LoRA t, whose update is s B_t A_t with scaling s; l_t the vector of
(IA)^3 number t; w_t the weights.

Departures: none with combine "factors". The product of summed factors holds cross terms B_i A_j that no module was
trained for; the other values of `combine` are what libraries do about it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from reference_impls.core.lora import low_rank_update, svd_of_low_rank_sum, truncated_svd
from reference_impls.core.selection import check_density, count_kept, keep_largest

Module = Mapping[str, tuple[Tensor, Tensor] | Tensor]  # weight name -> (A, B) of LoRA, or the vector of (IA)^3


def pem_composition(
    adapters: Sequence[Module],
    *,
    weights: Sequence[float] | None = None,
    combine: Literal["factors", "roots", "concatenate", "svd"] = "factors",
    scaling: float = 1.0,
    rank: int | None = None,
    density: float = 1.0,
) -> Module:
    r"""Add modules: a weighted sum of their parameters.

    $$
    A = \sum_t w_t A_t, \quad B = \sum_t w_t B_t, \qquad
    B A = \sum_t w_t^2\, B_t A_t + \sum_{i \ne j} w_i w_j\, B_i A_j; \qquad l = \sum_t w_t\, l_t
    $$

    The second sum are the cross terms. They vanish into the right answer where all the modules share one factor, and are the
    reason why the modules have to come from one initialisation.

    Args:
        adapters: one mapping per module, from weight name to $(A_t, B_t)$ with $A_t$ (r, n) and $B_t$ (m, r), or to $l_t$ of any
            shape; all of the same names and kinds.
        weights: $w_t$, one a module. Default None: 1/n each, for two modules the paper's $\lambda = 1/2$.
        combine: "factors" sums A and B apart (the paper); "roots" as well, with the square roots of the weights, the sign in A
            (PEFT's "linear"); "concatenate" stacks them to the exact sum of updates, of the summed rank (PEFT's "cat");
            "svd" is the best approximation of that sum of rank `rank` (PEFT's "svd"). (IA)^3 vectors are summed in any
            case. Default "factors": the paper.
        scaling: $s$ of the modules (alpha / r), taken into the result, whose own scaling is 1. Only "roots", "concatenate"
            and "svd" need it; "factors" leaves it to the caller. Default 1.0: alpha = r.
        rank: of the result of "svd", >= 1. Default None: the largest rank among the modules.
        density: fraction of the entries kept of each factor, or for "svd" of each update, by magnitude, in (0, 1] (PEFT's
            "magnitude_prune"). Default 1.0: nothing is dropped.

    Returns:
        One module of the same names and kind.

    Raises:
        ValueError: no modules, other names or kinds, another number of weights, ranks that differ where factors are summed,
            an unknown option.

    Example:
        Two updates of rank one, with a one in the first and in the last place. The exact mean has a half in both; the product
        of the mean factors has a quarter everywhere, half of it cross terms.

        >>> e1, e2 = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        >>> A, B = pem_composition([{"w": (e1, e1.T)}, {"w": (e2, e2.T)}])["w"]
        >>> B @ A
        tensor([[0.2500, 0.2500],
                [0.2500, 0.2500]])
        >>> A, B = pem_composition([{"w": (e1, e1.T)}, {"w": (e2, e2.T)}], combine="concatenate")["w"]
        >>> B @ A
        tensor([[0.5000, 0.0000],
                [0.0000, 0.5000]])

    References:
        zhang2023composing, the addition of modules.
    """
    check_density(density)
    if combine not in ("factors", "roots", "concatenate", "svd"):
        raise ValueError(f"combine is {combine!r}; it is one of factors, roots, concatenate, svd")
    if not adapters:
        raise ValueError("received no adapters; at least one is needed")
    w = [1 / len(adapters)] * len(adapters) if weights is None else [float(x) for x in weights]
    if len(w) != len(adapters):
        raise ValueError(f"received {len(w)} weights for {len(adapters)} adapters; one weight per adapter is needed")
    if any(set(adapter) != set(adapters[0]) for adapter in adapters):
        raise ValueError("the adapters name different weights; all need the same names")
    merged = {}
    for name, first in adapters[0].items():
        parts = [adapter[name] for adapter in adapters]
        if any(isinstance(part, Tensor) != isinstance(first, Tensor) for part in parts):
            raise ValueError(f"{name!r} has factors in one adapter and a vector in another; all need one kind")
        if isinstance(first, Tensor):
            merged[name] = _sum([prune(part, density) for part in parts], w)
        else:
            merged[name] = _combine_factors(parts, w, combine, scaling, rank, density)
    return merged


def pem_negation(adapter: Module) -> Module:
    r"""Turn a module round: $\ominus(A, B) = (A, -B)$ and $\ominus l = 2 - l$.

    Negating both factors of a LoRA would leave their product as it is; (IA)^3 multiplies activations, so that its neutral
    element is one and not zero.

    Args:
        adapter: weight name to $(A, B)$ or $l$.

    Returns:
        A new module.

    Example:
        >>> pem_negation({"w": torch.tensor([1.5, 1.0])})
        {'w': tensor([0.5000, 1.0000])}

    References:
        zhang2023composing, the negation of a module.
    """
    return {name: 2 - m if isinstance(m, Tensor) else (m[0].clone(), -m[1]) for name, m in adapter.items()}


def prune(tensor: Tensor, density: float) -> Tensor:
    """Return the tensor with its largest magnitudes only."""
    return keep_largest(tensor, count_kept(tensor.numel(), density))


def _combine_factors(
    parts: Sequence[tuple[Tensor, Tensor]], w: Sequence[float], combine: str, scaling: float, rank: int | None, density: float
) -> tuple[Tensor, Tensor]:
    """One LoRA out of several, for one weight."""
    ranks = [A.shape[0] for A, _ in parts]
    if combine == "svd":  # prune updates, add them up, cut the sum to its largest singular values
        rank = max(ranks) if rank is None else rank
        if density == 1:
            U, S, Vh = svd_of_low_rank_sum(list(parts), [x * scaling for x in w])
            rank = min(rank, len(S))
            U, S, Vh = U[:, :rank], S[:rank], Vh[:rank]
        else:
            updates = [prune(low_rank_update(A, B, scaling), density) for A, B in parts]
            U, S, Vh = truncated_svd(_sum(updates, w), min(rank, *updates[0].shape))
        return Vh, U * S
    As, Bs = ([prune(part[i], density) for part in parts] for i in (0, 1))
    if combine == "concatenate":
        return torch.cat([x * scaling * A for x, A in zip(w, As)]), torch.cat(Bs, dim=1)
    if len(set(ranks)) > 1:
        raise ValueError(f"the adapters have ranks {ranks}; a sum of factors needs one rank")
    if combine == "factors":
        return _sum(As, w), _sum(Bs, w)
    roots = [(abs(x) * scaling) ** 0.5 for x in w]
    return _sum(As, [r if x >= 0 else -r for r, x in zip(roots, w)]), _sum(Bs, roots)


def _sum(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Weighted sum in at least float32, rounded once."""
    dtype = torch.promote_types(tensors[0].dtype, torch.float32)
    return sum(x * t.to(dtype) for x, t in zip(weights, tensors)).to(tensors[0].dtype)
