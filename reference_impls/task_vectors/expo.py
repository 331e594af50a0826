r"""ExPO, model extrapolation (zheng2025expo).

Alignment training moves a model a little way from its start, in a direction that raises the reward. ExPO walks on in that
direction without training: it adds a fraction of the change once more. To first order that raises the training objective as
the training itself would have done, so that a model trained for a part of the steps comes near one trained for all.

Notation: theta_0 the model before alignment, theta_1 the aligned model, alpha the length of the extrapolation as a fraction
of the change.

Departures: none. The paper has one aligned model; of several the mean is extrapolated, as in FusionBench.
"""

from __future__ import annotations

from collections.abc import Sequence

from reference_impls.core.state_dict import StateDict, check_same_structure, linear_combination, to_state_dict, to_vector


def expo(base: StateDict, finetuned: Sequence[StateDict], *, alpha: float = 0.3) -> StateDict:
    r"""Extrapolate from the base model beyond the fine-tuned one.

    $$
    \theta = \theta_1 + \alpha\,(\theta_1 - \theta_0) = (1 + \alpha)\,\theta_1 - \alpha\,\theta_0
    $$

    Args:
        base: $\theta_0$, the model before alignment (supervised fine-tuning).
        finetuned: $\theta_1$, the aligned model, as a sequence of one; several are averaged first.
        alpha: $\alpha$, >= 0; 0 gives the aligned model. Default 0.3: README of the authors' code ("0.3 or 0.5"); the paper
            searches it.

    Returns:
        A new state dict, structured as `base`.

    Raises:
        ValueError: no models, models of another structure, a negative alpha.

    Example:
        Training moved the weight from 1 to 3; half of that change is added once more.

        >>> import torch
        >>> expo({"w": torch.tensor([1.0])}, [{"w": torch.tensor([3.0])}], alpha=0.5)
        {'w': tensor([4.])}

    References:
        zheng2025expo, the section on the method (the formula above).
    """
    if alpha < 0:
        raise ValueError(f"alpha is {alpha}; it is at least 0")
    if not finetuned:
        raise ValueError("received no fine-tuned models; at least one is needed")
    check_same_structure(base, *finetuned)
    aligned = linear_combination([to_vector(model) for model in finetuned], [1 / len(finetuned)] * len(finetuned))
    return to_state_dict(linear_combination([aligned, to_vector(base)], [1 + alpha, -alpha]), like=base)
