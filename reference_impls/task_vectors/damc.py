r"""DAMC: model composition with parameter decoupling and adjustment (chen2024model).

Averaging the language models of several multimodal models (NaiveMC) mixes two things that get in each other's way:
what a language model learned about the tokens of its modality, and how it changed for text. DAMC trains each
multimodal model with two sets of weights, one that the tokens of the modality pass through and one for text tokens.
Composition keeps the first set of every modality apart and merges only the second, with a coefficient for each model.

Notation: theta_i^t the weights of model i for text tokens, theta_i^m those for the tokens of its modality, phi_i its
encoder and connector, lambda_i the coefficients.

Departures: none. The paper trains with LoRA on both sets; any training will do, and is the caller's: `decouple`
prepares a model for it and `decoupled_linear` is the layer that passes each token through its own weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from reference_impls.core.state_dict import StateDict
from reference_impls.task_vectors.naive_mc import naive_mc


def damc(
    models: Sequence[StateDict],
    *,
    shared: Callable[[str], bool] | None = None,
    weights: Sequence[float] | None = None,
) -> StateDict:
    r"""Keep the weights of modality tokens apart and merge those of text tokens.

    $$
    \theta^t = \sum_i \lambda_i\, \theta_i^t, \qquad \theta^m = (\theta_1^m, \dots, \theta_n^m), \qquad
    \phi = (\phi_1, \dots, \phi_n)
    $$

    Args:
        models: decoupled multimodal models as from `decouple`, fine-tuned, n >= 1: the weights for text have names common to
            all, those for modality tokens, encoders and connectors belong to one model each.
        shared: tells by name whether a tensor is a weight for text. Default None: what all the models have.
        weights: $\lambda_i$, one per model, in [0, 1]; the paper adjusts them to the composition. Default None: 1/n each.

    Returns:
        A state dict with one set of weights for text and one set for each modality.

    Raises:
        ValueError: no models, another number of weights, weights for text of different structure, a name that two models have
            of their own.

    Example:
        >>> image = decouple({"up.weight": torch.tensor([1.0])}, "image", ["up.weight"])
        >>> audio = decouple({"up.weight": torch.tensor([3.0])}, "audio", ["up.weight"])
        >>> damc([image, audio], weights=[0.75, 0.25])
        {'up.weight': tensor([1.5000]), 'image.up.weight': tensor([1.]), 'audio.up.weight': tensor([3.])}

    References:
        chen2024model (DAMC: parameter decoupling, adaptive adjustment).
    """
    return naive_mc(models, shared=shared, weights=weights)


def decouple(model: StateDict, modality: str, names: Sequence[str]) -> dict[str, Tensor]:
    """Give the tokens of a modality their own copy of some weights, before fine-tuning.

    Args:
        model: a state dict.
        modality: prefix of the copies.
        names: the weights to be doubled, those of the language model's layers.

    Returns:
        A new state dict: the tensors of `model`, which text tokens use, and "modality.name" for each of `names`.

    Raises:
        ValueError: a name that the model does not have.

    Example:
        >>> list(decouple({"up.weight": torch.ones(1), "embed": torch.ones(1)}, "image", ["up.weight"]))
        ['up.weight', 'embed', 'image.up.weight']
    """
    missing = [name for name in names if name not in model]
    if missing:
        raise ValueError(f"the model has no {missing[:3]}")
    copies = {f"{modality}.{name}": model[name].detach().clone() for name in names}
    return {**{name: t.detach().clone() for name, t in model.items()}, **copies}


def decoupled_linear(inputs: Tensor, modalities: Sequence[str | None], weights: Mapping[str | None, Tensor]) -> Tensor:
    r"""Apply a linear map in which each token has the weight of its modality: $y_j = W_{m(j)}\, x_j$.

    Args:
        inputs: tokens (..., tokens, features).
        modalities: for each token its modality, None for text.
        weights: modality to matrix (outputs, features); None for text.

    Returns:
        Tokens (..., tokens, outputs).

    Example:
        >>> double, negate = 2 * torch.eye(1), -torch.eye(1)
        >>> decoupled_linear(torch.tensor([[3.0], [5.0]]), ["image", None], {"image": double, None: negate})
        tensor([[ 6.],
                [-5.]])
    """
    total = 0
    for kind in dict.fromkeys(modalities):
        of_this_kind = torch.tensor([[m == kind] for m in modalities], device=inputs.device)  # (tokens, 1)
        total = total + torch.where(of_this_kind, inputs @ weights[kind].T, 0)
    return total
