r"""Block merge.

Early and late blocks of a network do different work. Instead of one mixing ratio for all weights, give a few anchor
values and let the ratio run linearly from the first block to the last, if need be along a curve of its own for
attention, for instance.

Notation: a, b the tensors of theta_A and theta_B, t_l the ratio in block l of L, r_0 .. r_m the anchor values.

Departures: none; no paper defines it. Anchors spread evenly over the blocks are mergekit's gradients.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from reference_impls.averaging.slerp import slerp
from reference_impls.core.state_dict import StateDict, check_same_structure, linear_combination, to_state_dict
from reference_impls.core.state_dict import to_vector


def block_merge(
    model_a: StateDict,
    model_b: StateDict,
    *,
    ratios: Sequence[float] = (0.0, 1.0),
    by_kind: Mapping[str, Sequence[float]] | None = None,
    others: float = 0.5,
    block_pattern: str = r"(?:^|\.)(\d+)\.",
    along: Literal["line", "arc"] = "line",
) -> StateDict:
    r"""Interpolate two models with a ratio that changes from block to block.

    $$
    \theta^{(l)} = (1 - t_l)\,a^{(l)} + t_l\,b^{(l)}, \qquad
    t_l = (1 - s)\,r_k + s\,r_{k+1} \ \text{ with } \ k + s = \frac{l\,m}{L - 1}
    $$

    Args:
        model_a: $\theta_A$, where the ratio is 0.
        model_b: $\theta_B$, where the ratio is 1.
        ratios: anchor values $r_0 \dots r_m$ in [0, 1] from the first to the last block; one value is a constant.
            Default (0, 1): from A to B.
        by_kind: part of a name -> anchor values for the tensors whose name contains it, for example
            `{"attn": (0, 0.5, 1), "mlp": (1, 0)}`; the first that fits counts. Default None: `ratios` for all.
        others: ratio of the tensors that belong to no block (embeddings, heads), in [0, 1]. Default 0.5: the middle.
        block_pattern: regular expression whose first group is the number of the block. Default: the first number
            between dots.
        along: "line" interpolates on the straight line, "arc" as `slerp` does, tensor by tensor.
            Default "line": the plain case.

    Returns:
        A new state dict, structured as `model_a`.

    Raises:
        ValueError: models of another structure, a ratio outside [0, 1], no anchor values, an unknown option.

    Example:
        Three blocks and ratios from 0 to 1: the middle block is mixed half and half.

        >>> import torch
        >>> a = {f"blocks.{i}.w": torch.tensor([0.0]) for i in range(3)}
        >>> b = {f"blocks.{i}.w": torch.tensor([8.0]) for i in range(3)}
        >>> [tensor.item() for tensor in block_merge(a, b).values()]
        [0.0, 4.0, 8.0]

    References:
        none: practice of the image-diffusion and language-model merging communities.
    """
    curves = {"": ratios, **(by_kind or {})}
    for name, values in {**curves, "others": [others]}.items():
        if not values or not all(0 <= r <= 1 for r in values):
            whose = f" of {name!r}" if name else ""
            raise ValueError(f"ratios{whose} are {list(values)}; one or more numbers in [0, 1] are needed")
    if along not in ("line", "arc"):
        raise ValueError(f"along is {along!r}; it is line or arc")
    check_same_structure(model_a, model_b)

    theta_a, theta_b = to_vector(model_a), to_vector(model_b)
    numbers = {key: int(found[1]) for key in theta_a if (found := re.search(block_pattern, key))}
    order = {number: position for position, number in enumerate(sorted(set(numbers.values())))}
    merged = {}
    for key in theta_a:
        t = others
        if key in numbers:
            curve = next((values for kind, values in (by_kind or {}).items() if kind in key), ratios)
            t = _on_curve(curve, order[numbers[key]], len(order))
        a, b = {key: theta_a[key]}, {key: theta_b[key]}
        merged |= slerp(a, b, t=t) if along == "arc" else linear_combination([a, b], [1 - t, t])
    return to_state_dict(merged, like=model_a)


def _on_curve(anchors: Sequence[float], position: int, count: int) -> float:
    """The value at `position` of 0 .. count - 1 on the broken line through evenly spread anchors."""
    if len(anchors) == 1 or count == 1:
        return anchors[0]
    place = position * (len(anchors) - 1) / (count - 1)
    k = min(int(place), len(anchors) - 2)
    return anchors[k] + (place - k) * (anchors[k + 1] - anchors[k])
