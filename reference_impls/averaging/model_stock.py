r"""Model Stock (jang2024modelstock).

Fine-tuned models lie on a thin shell around a centre that performs best. The centre itself is out of reach, but two or
three models and the pre-trained one suffice to say where on the line between their average and the pre-trained model
the point nearest to the centre lies: it depends only on the angle between the models as seen from the pre-trained one.

Notation: w_0 the pre-trained weights of a layer, w_i those of N fine-tuned models, w_avg their mean, theta the angle
between w_i - w_0 and w_j - w_0, t the interpolation ratio.

Departures: the paper assumes an acute angle. For a mean angle above 90 degrees t would leave [0, 1]; here it is clamped
(`clamp`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, combinations_with_replacement
from typing import Literal

import torch
from torch import Tensor

from reference_impls.core.blocks import each, inner_products
from reference_impls.core.state_dict import StateDict, linear_combination, task_vector, to_state_dict, to_vector, zip_rows


def model_stock(
    base: StateDict,
    finetuned: Sequence[StateDict],
    *,
    scope: Literal["tensor", "row", "model"] = "tensor",
    mean_of: Literal["angles", "cosines"] = "angles",
    clamp: bool = True,
) -> StateDict:
    r"""Interpolate between the average and the pre-trained model by the angle between the models.

    $$
    w = t\,w_{\text{avg}} + (1 - t)\,w_0, \qquad t = \frac{N \cos\theta}{1 + (N - 1)\cos\theta}
    $$

    Args:
        base: $w_0$, the pre-trained model.
        finetuned: $w_1 \dots w_N$, N >= 2.
        scope: what has one angle: each "tensor", each "row" of a tensor (last dimension), or the whole "model".
            Default "tensor": the paper's layers.
        mean_of: what is averaged over pairs if N > 2: "angles" (the authors, FusionBench) or "cosines" (mergekit).
            Default "angles": the authors.
        clamp: True keeps t in [0, 1]; False applies the formula at any angle. Default True: a choice here.

    Returns:
        A new state dict, structured as `base`.

    Raises:
        ValueError: fewer than two models, models of another structure, an unknown option.

    Example:
        The angle between (1, 0) and (1, 1) is 45 degrees: t = 1.4142 / 1.7071 = 0.8284, times the mean (1, 0.5).

        >>> model_stock({"w": torch.zeros(2)}, [{"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([1.0, 1.0])}])
        {'w': tensor([0.8284, 0.4142])}

    References:
        jang2024modelstock, the interpolation ratio for two and for N models.
    """
    for name, value, allowed in (
        ("scope", scope, ("tensor", "row", "model")),
        ("mean_of", mean_of, ("angles", "cosines")),
    ):
        if value not in allowed:
            raise ValueError(f"{name} is {value!r}; it is one of {', '.join(allowed)}")
    if len(finetuned) < 2:
        raise ValueError(f"received {len(finetuned)} fine-tuned models; at least two are needed for an angle")
    task_vectors = [task_vector(model, base) for model in finetuned]
    if scope == "row":
        pulled = zip_rows(lambda *taus: _pull_rows(taus, mean_of, clamp), *task_vectors)
    else:
        pulled, count = {}, len(task_vectors)
        for keys in [[key] for key in task_vectors[0]] if scope == "tensor" else [[*task_vectors[0]]]:
            parts = [{key: tau[key] for key in keys} for tau in task_vectors]
            gram = sum(each(lambda *taus: inner_products(taus), *(part.values() for part in parts)))
            t = _ratio(gram, count, mean_of, clamp)
            pulled |= linear_combination(parts, [float(t) / count] * count)
    return to_state_dict(linear_combination([to_vector(base), pulled], [1.0, 1.0]), like=base)


def _pull_rows(taus: Sequence[Tensor], mean_of: str, clamp: bool) -> Tensor:
    """t times the mean of the task vectors, with a t for each row."""
    taus = [tau.double() for tau in taus]
    pairs = combinations_with_replacement(range(len(taus)), 2)
    products = {(i, j): (taus[i] * taus[j]).sum(dim=-1, keepdim=True) for i, j in pairs}
    return _ratio(products, len(taus), mean_of, clamp) * sum(taus) / len(taus)


def _ratio(products: Mapping[tuple[int, int], Tensor] | Tensor, count: int, mean_of: str, clamp: bool) -> Tensor:
    """The interpolation ratio t, by the inner products of the task vectors."""
    cosines = torch.stack([_cosine(products[i, i], products[i, j], products[j, j]) for i, j in combinations(range(count), 2)])
    cosine = cosines.mean(dim=0) if mean_of == "cosines" else cosines.acos().mean(dim=0).cos()
    if clamp:
        cosine = cosine.clamp(min=0)
    return count * cosine / (1 + (count - 1) * cosine)


def _cosine(aa: Tensor, ab: Tensor, bb: Tensor) -> Tensor:
    """Cosine of the angle between vectors; 0 for a zero vector, which has no direction."""
    lengths = aa.sqrt() * bb.sqrt()
    return torch.where(lengths > 0, ab / torch.where(lengths > 0, lengths, 1), 0).clamp(-1, 1)
