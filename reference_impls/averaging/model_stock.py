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

from collections.abc import Sequence
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor

from reference_impls.core.state_dict import StateDict, flatten, linear_combination, task_vector, to_state_dict
from reference_impls.core.state_dict import to_vector, unflatten, zip_map


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
    theta_0 = to_vector(base)
    if scope == "model":
        flat = _pull(mean_of, clamp, None, *(flatten(tau) for tau in task_vectors))
        pulled = unflatten(flat, like=theta_0)
    else:
        pulled = zip_map(lambda *taus: _pull(mean_of, clamp, -1 if scope == "row" else None, *taus), *task_vectors)
    return to_state_dict(linear_combination([theta_0, pulled], [1.0, 1.0]), like=base)


def _pull(mean_of: str, clamp: bool, dim: int | None, *taus: Tensor) -> Tensor:
    """t times the mean of the task vectors."""
    taus = tuple(tau.double() for tau in taus)
    cosines = torch.stack([_cosine(a, b, dim) for a, b in combinations(taus, 2)])
    cosine = cosines.mean(dim=0) if mean_of == "cosines" else cosines.acos().mean(dim=0).cos()
    if clamp:
        cosine = cosine.clamp(min=0)
    count = len(taus)
    t = count * cosine / (1 + (count - 1) * cosine)
    return t * sum(taus) / count


def _cosine(a: Tensor, b: Tensor, dim: int | None) -> Tensor:
    """Cosine of the angle between vectors; 0 for a zero vector, which has no direction."""
    norm = lambda x: torch.linalg.vector_norm(x, dim=dim, keepdim=True)  # noqa: E731
    product, lengths = a * b, norm(a) * norm(b)
    product = product.sum() if dim is None else product.sum(dim=dim, keepdim=True)
    return torch.where(lengths > 0, product / torch.where(lengths > 0, lengths, 1), 0).clamp(-1, 1)
