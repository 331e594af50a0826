r"""Ensembles of predictions.

Every model answers every input, and the answers are combined: by the mean of their logits or of their probabilities (each model
with a weight), by a vote, or by listening, input by input, only to the model that is most sure of itself. Nothing is trained and
no parameters are mixed, so the models may differ in architecture. The price is one forward pass per model.

Notation: z_k(x) the logits of model k, p_k(x) = softmax(z_k(x)) its probabilities, w_k its weight; C classes, K models.

Departures: none; no single paper introduced these rules. In a vote, classes with equal shares have equal probability, and argmax
then takes the class of lowest number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Rule = Literal["probabilities", "logits", "vote", "confidence", "max"]
RULES = ("probabilities", "logits", "vote", "confidence", "max")


def logit_ensemble(
    networks: Sequence[nn.Module], *, combine: Rule = "probabilities", weights: Sequence[float] | None = None
) -> nn.Module:
    r"""Return the network that answers with the combined predictions of several.

    $$
    p(x) =
    \begin{cases}
      \sum_k w_k\, p_k(x) & \text{probabilities} \\
      \mathrm{softmax}\big(\sum_k w_k\, z_k(x)\big) & \text{logits} \\
      \sum_k w_k\, e_{\arg\max_c p_k(x)_c} & \text{vote} \\
      p_{k^*}(x),\ \ k^* = \arg\max_k\, w_k \max_c p_k(x)_c & \text{confidence} \\
      \mathrm{softmax}\big(\max_k z_k(x)\big) & \text{max}
    \end{cases}
    $$

    Args:
        networks: K >= 1 networks; each maps inputs to logits of shape (..., C), with one meaning of the C classes.
        combine: "probabilities" averages probabilities, "logits" averages logits (the normalised geometric mean of the
            probabilities), "vote" counts the predicted classes, "confidence" takes the surest model for each input, "max"
            takes the largest logit of each class over all the models (FusionBench), without weights.
            Default "probabilities": the usual deep ensemble.
        weights: $w_1 \dots w_K$, non-negative, at least one positive; divided by their sum. Default None: equal weights.

    Returns:
        A network in evaluation mode that maps inputs to probabilities of shape (..., C). It holds the given networks themselves.

    Raises:
        ValueError: no networks, an unknown rule, weights of another number, negative or all zero.

    Example:
        Probabilities (0.8, 0.2) and (0.4, 0.6): their mean is (0.6, 0.4). The logits are log 4 and 0, and 0 and log 1.5, so their
        mean differs by (log 4 - log 1.5) / 2 = log 1.633, and the first class has 1.633 / 2.633 = 0.62.

        >>> class Fixed(nn.Module):
        ...     def __init__(self, *p):
        ...         super().__init__()
        ...         self.p = torch.tensor(p)
        ...     def forward(self, x):
        ...         return self.p.log().expand(len(x), -1)
        >>> models = [Fixed(0.8, 0.2), Fixed(0.4, 0.6)]
        >>> logit_ensemble(models)(torch.zeros(1, 1))
        tensor([[0.6000, 0.4000]])
        >>> logit_ensemble(models, combine="logits")(torch.zeros(1, 1))
        tensor([[0.6202, 0.3798]])
        >>> logit_ensemble(models, combine="confidence")(torch.zeros(1, 1))
        tensor([[0.8000, 0.2000]])

    References:
        No single paper; averages and votes of predictions are older than deep networks.
    """
    if not networks:
        raise ValueError("received no networks; at least one is needed")
    if combine not in RULES:
        raise ValueError(f"combine is {combine!r}; it is one of {', '.join(RULES)}")
    shares = torch.ones(len(networks)) if weights is None else torch.as_tensor(weights, dtype=torch.float32)
    if shares.shape != (len(networks),):
        raise ValueError(f"received {shares.numel()} weights for {len(networks)} networks; one weight per network is needed")
    if (shares < 0).any() or shares.sum() == 0:
        raise ValueError(f"weights are {shares.tolist()}; they must be non-negative and not all zero")
    return Ensemble(networks, combine, shares / shares.sum()).eval()


class Ensemble(nn.Module):
    """Networks whose predictions are combined by one rule."""

    def __init__(self, networks: Sequence[nn.Module], combine: Rule, weights: Tensor) -> None:
        super().__init__()
        self.members = nn.ModuleList(networks)
        self.combine = combine
        self.register_buffer("weights", weights.to(_device(networks)))

    def forward(self, inputs: Tensor) -> Tensor:
        logits = torch.stack([member(inputs) for member in self.members])  # (K, ..., C)
        return combine_logits(logits, self.weights, self.combine)


def combine_logits(logits: Tensor, weights: Tensor, combine: Rule) -> Tensor:
    """Combine the logits of K models, (K, ..., C) -> probabilities (..., C); `weights` sum to one.

    Example:
        >>> combine_logits(torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 9.0]]), torch.ones(3) / 3, "vote")
        tensor([0.6667, 0.3333])
    """
    w = weights.reshape(-1, *[1] * (logits.dim() - 1))  # (K, 1, ..., 1)
    probabilities = logits.softmax(dim=-1)
    if combine == "logits":
        return (w * logits).sum(dim=0).softmax(dim=-1)
    if combine == "vote":
        chosen = nn.functional.one_hot(logits.argmax(dim=-1), logits.shape[-1])
        return (w * chosen).sum(dim=0)
    if combine == "confidence":
        surest = (w * probabilities).amax(dim=-1, keepdim=True).argmax(dim=0, keepdim=True)  # (1, ..., 1)
        return probabilities.gather(0, surest.expand(1, *probabilities.shape[1:])).squeeze(0)
    if combine == "max":
        return logits.amax(dim=0).softmax(dim=-1)
    return (w * probabilities).sum(dim=0)


def _device(networks: Sequence[nn.Module]) -> torch.device:
    return next((p.device for network in networks for p in network.parameters()), torch.device("cpu"))
