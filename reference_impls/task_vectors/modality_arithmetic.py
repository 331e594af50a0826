r"""Modality arithmetic (sung2023multimodal).

A model with transformers of its own for images, for text and for both together is large. When all of them were
trained from one seed checkpoint they can be merged into one transformer for every modality: each has moved away from
the seed, and the movements are added up. A modality need not have every layer (in the paper, the transformer for both
together is only the upper part); a layer is moved by those that have it.

Notation: theta_seed the common checkpoint, theta_m the transformer of modality m, tau_m = theta_m - theta_seed its
modality vector, lambda the scaling coefficient.

Departures: none. The paper compares this with interpolation and RegMean and also keeps layer norms apart; those are
other methods.
"""

from __future__ import annotations

from collections.abc import Sequence

from reference_impls.core.blocks import entrywise
from reference_impls.core.state_dict import StateDict, task_vector, to_state_dict, to_vector


def modality_arithmetic(base: StateDict, finetuned: Sequence[StateDict], *, scaling_coef: float = 1.0) -> StateDict:
    r"""Merge the transformers of several modalities into one that serves them all.

    $$
    \theta = \theta_{seed} + \lambda \sum_m \tau_m, \qquad \tau_m = \theta_m - \theta_{seed}
    $$

    Args:
        base: $\theta_{seed}$, the checkpoint from which all the modalities were trained.
        finetuned: $\theta_m$, one per modality, n >= 1; each has all the names of `base` or some of them.
        scaling_coef: $\lambda$. Default 1.0: the default of the authors' code (`sum_lambda`); the paper picks it by experiment.

    Returns:
        A new state dict, structured as `base`; tensors that no modality has are those of the seed.

    Raises:
        ValueError: no models, names that the seed does not have, tensors of another structure.

    Example:
        The vision model moves both layers, by 1 and 2; the cross-modal model has the upper layer only and moves it by 4.

        >>> import torch
        >>> seed = {"lower": torch.tensor([0.0]), "upper": torch.tensor([10.0])}
        >>> vision, cross = {"lower": torch.tensor([1.0]), "upper": torch.tensor([12.0])}, {"upper": torch.tensor([14.0])}
        >>> modality_arithmetic(seed, [vision, cross], scaling_coef=0.5)
        {'lower': tensor([0.5000]), 'upper': tensor([13.])}

    References:
        sung2023multimodal (modality arithmetic); authors' code at 2413e4e.
    """
    if not finetuned:
        raise ValueError("received no models; at least one modality is needed")
    theta = to_vector(base)
    for number, model in enumerate(finetuned, start=1):
        unknown = [name for name in model if name not in base]
        if unknown:
            raise ValueError(f"modality {number} has {unknown[:3]}, which the seed does not have")
        tau = task_vector(model, {name: tensor for name, tensor in base.items() if name in model})
        moved = {name: entrywise(lambda t, d: t + scaling_coef * d, theta[name], d) for name, d in tau.items()}
        theta = {**theta, **moved}
    return to_state_dict(theta, like=base)
