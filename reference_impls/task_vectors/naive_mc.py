r"""NaiveMC, the plain form of model composition (chen2024model).

Multimodal language models join an encoder and a connector for one modality to a language model, which is fine-tuned
along. Several of them that grew from one language model are composed without training into one model for all their
modalities: every encoder and connector is kept as it is, and the fine-tuned language models are averaged.

Notation: theta_i the language model of multimodal model i, phi_i its encoder and connector, w_i the weights, n the
number of models.

Departures: none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from reference_impls.core.state_dict import StateDict, check_same_structure, linear_combination, to_state_dict, to_vector


def naive_mc(
    models: Sequence[StateDict],
    *,
    shared: Callable[[str], bool] | None = None,
    weights: Sequence[float] | None = None,
) -> StateDict:
    r"""Keep what belongs to the modalities and average the language models.

    $$
    \theta = \frac1n \sum_i \theta_i, \qquad \phi = (\phi_1, \dots, \phi_n)
    $$

    Args:
        models: multimodal models, n >= 1: the names of the language model are common to all, those of encoders and connectors
            belong to one model each ("image.encoder.weight").
        shared: tells by name whether a tensor belongs to the language model. Default None: what all the models have.
        weights: $w_i$ of the language models. Default None: 1/n each, the mean.

    Returns:
        A state dict with the averaged language model and all the encoders and connectors.

    Raises:
        ValueError: no models, another number of weights, language models of different structure, an encoder's name that
            two models use.

    Example:
        >>> import torch
        >>> image = {"image.encoder": torch.tensor([7.0]), "language.weight": torch.tensor([1.0])}
        >>> audio = {"audio.encoder": torch.tensor([8.0]), "language.weight": torch.tensor([3.0])}
        >>> naive_mc([image, audio])
        {'image.encoder': tensor([7.]), 'language.weight': tensor([2.]), 'audio.encoder': tensor([8.])}

    References:
        chen2024model (NaiveMC).
    """
    if not models:
        raise ValueError("received no models; at least one is needed")
    w = [1 / len(models)] * len(models) if weights is None else [float(x) for x in weights]
    if len(w) != len(models):
        raise ValueError(f"received {len(w)} weights for {len(models)} models; one weight per model is needed")

    is_shared = (lambda name: all(name in model for model in models)) if shared is None else shared
    language = [{name: t for name, t in model.items() if is_shared(name)} for model in models]
    check_same_structure(*language)
    merged = to_state_dict(linear_combination([to_vector(m) for m in language], w), like=language[0])

    composed: dict = {}
    for model in models:
        own = {name: t for name, t in model.items() if not is_shared(name)}
        own = to_state_dict(to_vector(own), like=own)  # a copy
        for name in model:
            if name in own and name in composed:
                raise ValueError(f"two models have {name!r} of their own; give the parts of each modality names of their own")
            composed[name] = own[name] if name in own else merged[name]
    return composed
