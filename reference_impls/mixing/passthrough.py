r"""Passthrough, frankenmerge or layer stacking.

A deeper model is put together from blocks that already exist: ranges of blocks of one or several models are copied
unchanged, one after the other, and numbered anew. Nothing is averaged and nothing is trained. It relies on the
residual stream, which blocks of one architecture share closely enough that some may be repeated or exchanged. What
stands before the blocks (embedding) comes from the first range's model, what stands after them (norm, head) from the
last range's model.

Notation: B_l^m block l of model m, E^m and H^m what stands before and after the blocks.

Departures: no paper introduced it; the shape of the ranges is mergekit's `slices`, and so is `scale`. Where the
tensors before and after the blocks belong is read from the order of the keys.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from torch import Tensor

from reference_impls.core.state_dict import StateDict, check_same_structure, tied_to


class Slice(NamedTuple):
    """A range of blocks of one model.

    Attributes:
        model: number of the model, from 0.
        start: first block.
        stop: the block after the last one, > start.
        scale: factor by the end of a tensor's name, applied to the copies in this range; 0 on the tensors through which
            a block writes into the residual stream makes it the identity.
    """

    model: int
    start: int
    stop: int
    scale: Mapping[str, float] = MappingProxyType({})


def passthrough(
    models: Sequence[StateDict], slices: Sequence[tuple], *, block: str = "blocks.{}."
) -> dict[str, Tensor]:
    r"""Stack ranges of blocks, copied unchanged, into one model.

    $$
    \theta = \big(E^{m_1},\ B_{a_1}^{m_1} \dots B_{b_1 - 1}^{m_1},\ \dots,\
    B_{a_k}^{m_k} \dots B_{b_k - 1}^{m_k},\ H^{m_k}\big)
    $$

    Args:
        models: the models that ranges are taken from, of one architecture, n >= 1.
        slices: $(m_i, a_i, b_i)$, or (m_i, a_i, b_i, scale): a range of blocks each, in the order of the new model;
            see `Slice`.
        block: how the name of a block's tensors begins, with {} for its number. Default "blocks.{}.": the toy zoo's;
            "model.layers.{}." in many language models.

    Returns:
        A new state dict with as many blocks as the ranges have together. A tied pair stays tied where both names come
        from one model.

    Raises:
        ValueError: no models, no ranges, models of another structure, no tensor named like a block, a range or model
            that does not exist.

    Example:
        Blocks 0 and 1 of the first model, then block 1 of the second; the head is the second's.

        >>> import torch
        >>> a = {"embed": torch.tensor([1.0]), "blocks.0.w": torch.tensor([2.0]), "blocks.1.w": torch.tensor([3.0]),
        ...      "head": torch.tensor([4.0])}
        >>> b = {name: -tensor for name, tensor in a.items()}
        >>> {name: tensor.item() for name, tensor in passthrough([a, b], [(0, 0, 2), (1, 1, 2)]).items()}
        {'embed': 1.0, 'blocks.0.w': 2.0, 'blocks.1.w': 3.0, 'blocks.2.w': -3.0, 'head': -4.0}

    References:
        mergekit, merge method "passthrough"; no paper.
    """
    check_same_structure(*models)
    slices = [Slice(*given) for given in slices]
    names = list(models[0])
    number_of = _block_numbers(names, block)
    depth = max(number_of.values()) + 1
    if not slices:
        raise ValueError("received no slices; at least one range of blocks is needed")
    for part in slices:
        if not 0 <= part.model < len(models) or not 0 <= part.start < part.stop <= depth:
            raise ValueError(f"received slice {part[:3]}; there are {len(models)} models with blocks 0 to {depth - 1}")

    order = list(number_of)
    first, last = names.index(order[0]), names.index(order[-1])
    before, after = names[:first], names[last + 1 :]
    if astray := [name for name in names[first:last] if name not in number_of]:
        raise ValueError(
            f"{astray[0]!r} stands between the blocks; it belongs to neither the start nor the end of the model"
        )

    out: dict[str, Tensor] = {name: models[slices[0].model][name].clone() for name in before}
    position = 0
    for part in slices:
        for number in range(part.start, part.stop):
            old, new = block.format(number), block.format(position)
            for name in (n for n, i in number_of.items() if i == number):
                factor = next((f for end, f in part.scale.items() if name.endswith(end)), None)
                tensor = models[part.model][name]
                out[name.replace(old, new, 1)] = tensor.clone() if factor is None else tensor * factor
            position += 1
    out |= {name: models[slices[-1].model][name].clone() for name in after}

    if slices[0].model == slices[-1].model:  # embedding and head of one model keep their tie
        for name, owner in tied_to(models[slices[0].model]).items():
            if name in after and owner in before:
                out[name] = out[owner]
    return out


def _block_numbers(names: Sequence[str], block: str) -> dict[str, int]:
    """The number of the block that each tensor belongs to; tensors outside the blocks are left out."""
    if block.count("{}") != 1:
        raise ValueError(f"block is {block!r}; it needs {{}} once, where the number of the block stands")
    pattern = re.compile(re.escape(block).replace(r"\{\}", r"(\d+)"))
    found = {name: int(match[1]) for name in names if (match := pattern.match(name))}
    if not found:
        raise ValueError(f"no tensor is named like {block!r}; the names begin with {', '.join(list(names)[:3])}")
    return found
