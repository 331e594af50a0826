r"""LM-Cocktail (xiao2023lmcocktail).

A model fine-tuned on one domain gets worse at everything else. Mixing it with the base model and with models fine-tuned
on other domains restores the general ability; which of those to trust is read off their losses on a few examples of the
domain.

Notation: theta_t the model fine-tuned on the target domain, theta_i the candidates (the base model and the peers), L_i
their losses on a few target examples, tau the temperature, alpha the share of the fine-tuned model.

Departures: none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from reference_impls.averaging.uniform_soup import uniform_soup
from reference_impls.core.state_dict import StateDict


def lm_cocktail(
    base: StateDict,
    finetuned: Sequence[StateDict],
    loss_fn: Callable[[StateDict], Tensor],
    *,
    alpha: float = 0.5,
    temperature: float = 5.0,
) -> StateDict:
    r"""Mix a fine-tuned model with the base model and its peers, weighed by their losses.

    $$
    \theta = \alpha\,\theta_t + (1 - \alpha) \sum_i w_i\,\theta_i, \qquad
    w = \mathrm{softmax}\big(-L_1 / \tau, \dots, -L_n / \tau\big)
    $$

    Args:
        base: the base model, one of the candidates.
        finetuned: first the model of the target domain $\theta_t$, then the peers (none: base and $\theta_t$ alone).
        loss_fn: loss of a state dict on a few examples of the target domain, in nats a token.
        alpha: share of the fine-tuned model, in [0, 1]; 0 mixes the candidates alone, where nothing was fine-tuned on
            the target. Default 0.5: the authors' example for
            embedding models.
        temperature: $\tau$ > 0, in the unit of the loss; small trusts the best candidate, large trusts all alike.
            Default 5.0: the authors' code.

    Returns:
        A new state dict, structured as `base`.

    Raises:
        ValueError: no models, models of another structure, alpha outside [0, 1], a temperature that is not positive.

    Example:
        The losses of the candidates 0 and 2 are 0 and log 3 at temperature 1, their weights 3/4 and 1/4, their mix 0.5;
        half of that and half of the fine-tuned model at 4 is 2.25.

        >>> model = lambda x: {"w": torch.tensor([x])}
        >>> loss = lambda sd: sd["w"].sum() / 2 * torch.tensor(3.0).log()
        >>> lm_cocktail(model(0.0), [model(4.0), model(2.0)], loss, temperature=1.0)
        {'w': tensor([2.2500])}

    References:
        xiao2023lmcocktail, the merging functions of its method section.
    """
    if not finetuned:
        raise ValueError("received no fine-tuned models; the model of the target domain is needed")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; it is in [0, 1]")
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; it is positive")
    target, *peers = finetuned
    candidates = [base, *peers]
    with torch.no_grad():
        losses = torch.tensor([float(loss_fn(candidate)) for candidate in candidates], dtype=torch.float64)
    shares = (-losses / temperature).softmax(dim=0).tolist()
    return uniform_soup([*candidates, target], weights=[*((1 - alpha) * w for w in shares), alpha])
