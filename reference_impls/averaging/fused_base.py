r"""Fusing (choshen2022fusing).

Thousands of fine-tuned models are shared, each with knowledge of its own data. Their average, without the task heads,
is rarely a good model for any of the tasks, but it is a better place to start the next fine-tuning from than the
pre-trained model.

Notation: theta_i the fine-tuned models without their heads.

Departures: none.
"""

from __future__ import annotations

from collections.abc import Sequence

from reference_impls.averaging.uniform_soup import uniform_soup
from reference_impls.core.state_dict import StateDict


def fused_base(finetuned: Sequence[StateDict], *, heads: Sequence[str] = ()) -> StateDict:
    r"""Average fine-tuned models into a new base model.

    $$
    \theta_{\text{fuse}} = \frac{1}{n} \sum_{i=1}^n \theta_i
    $$

    Args:
        finetuned: $\theta_1 \dots \theta_n$, n >= 1; their heads may differ in shape.
        heads: names, or beginnings of names up to a dot, of the task heads, which are dropped: "classifier" drops
            "classifier.weight". Default (): nothing is dropped.

    Returns:
        A new state dict, structured as the first model without its heads.

    Raises:
        ValueError: no models, models of another structure, a head that no model has, nothing left.

    Example:
        >>> import torch
        >>> model = lambda x, classes: {"body": torch.tensor([x]), "head.weight": torch.ones(classes)}
        >>> fused_base([model(1.0, 2), model(5.0, 3)], heads=["head"])
        {'body': tensor([3.])}

    References:
        choshen2022fusing, the fusing procedure.
    """
    is_head = lambda key: any(key == head or key.startswith(head + ".") for head in heads)  # noqa: E731
    if not finetuned:
        raise ValueError("received no fine-tuned models; at least one is needed")
    for head in heads:
        if not any(key == head or key.startswith(head + ".") for model in finetuned for key in model):
            raise ValueError(f"no model has a head {head!r}; the names are {list(finetuned[0])[:5]}")
    bodies = [{key: tensor for key, tensor in model.items() if not is_head(key)} for model in finetuned]
    if not bodies[0]:
        raise ValueError(f"nothing is left after dropping the heads {list(heads)}")
    return uniform_soup(bodies)
