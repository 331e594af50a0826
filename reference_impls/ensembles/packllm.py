r"""PackLLM (mavromatis2024packllm).

Language models of any architecture and vocabulary are mixed at test time, for one prompt, without training. How well a model
knows the prompt's domain shows in its perplexity on the prompt itself. The "sim" variant weighs the models by a softmax of their
negative log-perplexities; "opt" adds one model after another, in the order of their perplexities, with the weight that makes the
perplexity of the mixture least. The vocabulary of the model that knows the prompt best is the common one; the others' logits are
read at the tokens that are spelled most alike.

Notation: s_k the logits of model k at the reference tokens, PPL_k its perplexity on the prompt, tau the temperature, lambda_k its
weight.

Departures: as in the authors' code, the reference is chosen by perplexity in each model's own tokens, and the weights by
perplexity in the reference's. The weights are those of the prompt; the code takes the whole input of each forward pass for the
prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reference_impls.distillation.fusellm import Tokenizer, vocabulary_map


def packllm(
    networks: Sequence[nn.Module],
    prompt: str,
    *,
    tokenizers: Sequence[Tokenizer],
    mode: Literal["sim", "opt"] = "sim",
    temperature: float = 1.0,
    grid: int = 20,
) -> nn.Module:
    r"""Return the mixture of language models that fits one prompt.

    $$
    \text{sim: } \lambda_k = \frac{e^{-\log \mathrm{PPL}_k / \tau}}{\sum_j e^{-\log \mathrm{PPL}_j / \tau}}, \qquad
    \text{opt: } s \leftarrow \lambda\, s + (1 - \lambda)\, s_{k},\ \
    \lambda = \arg\min_{\lambda \in \{0, 1/m, \dots, 1\}} \log \mathrm{PPL}\big(\lambda s + (1 - \lambda) s_k\big)
    $$

    where opt goes through the models k from the least perplexity to the largest and starts with s of the first.

    Args:
        networks: language models, each maps token numbers (n, T) to logits (n, T, V_k) of the next token.
        prompt: the text whose perplexity counts; two tokens or more in each vocabulary.
        tokenizers: one for each model: `pieces`, its tokens as strings, and `encode(text)`, a list of token numbers.
        mode: "sim" or "opt". Default "sim": the simpler of the two.
        temperature: $\tau > 0$ of "sim". Default 1: the authors' code.
        grid: m, the steps of "opt" from 0 to 1. Default 20: steps of 0.05, the authors' code.

    Returns:
        A network from token numbers (n, T) of the reference vocabulary to mixed logits (n, T, V). `reference` is the number of
        the
        reference model and `weights` are the lambda_k, in the order given. It holds the given networks.

    Raises:
        ValueError: no networks, another number of tokenizers, a prompt too short, an unknown mode, temperature or grid not
            positive.

    Example:
        Perplexities 2 and 4 at temperature 1: the weights are as 1/2 to 1/4.

        >>> class Constant(nn.Module):
        ...     def __init__(self, *p):
        ...         super().__init__()
        ...         self.p = torch.tensor(p)
        ...     def forward(self, tokens):
        ...         return self.p.log().expand(*tokens.shape, -1)
        >>> class Letters:
        ...     pieces = ["a", "b"]
        ...     def encode(self, text):
        ...         return [self.pieces.index(letter) for letter in text]
        >>> mixed = packllm([Constant(0.5, 0.5), Constant(0.25, 0.75)], "aaaa", tokenizers=[Letters(), Letters()])
        >>> mixed.weights
        tensor([0.6667, 0.3333])

    References:
        mavromatis2024packllm, the sections on PackLLM-sim, PackLLM-opt and on tokenizer selection and alignment.
    """
    if not networks or len(networks) != len(tokenizers):
        raise ValueError(f"received {len(networks)} networks and {len(tokenizers)} tokenizers; one for each network is needed")
    if mode not in ("sim", "opt") or temperature <= 0 or grid < 1:
        raise ValueError(f"mode is {mode!r} (sim, opt), temperature {temperature} (> 0), grid {grid} (>= 1)")
    device = next((p.device for network in networks for p in network.parameters()), torch.device("cpu"))
    encoded = [torch.tensor([tokenizer.encode(prompt)], device=device) for tokenizer in tokenizers]
    if min(tokens.shape[1] for tokens in encoded) < 2:
        raise ValueError(f"the prompt {prompt!r} has fewer than two tokens in a vocabulary; a perplexity needs two")

    with torch.no_grad():
        own = torch.stack([_log_perplexity(network(tokens), tokens) for network, tokens in zip(networks, encoded)])
        reference = int(own.argmin())
        pieces = tokenizers[reference].pieces
        maps = [vocabulary_map(pieces, tokenizer.pieces).to(device) for tokenizer in tokenizers]  # reference token -> own token
        model = PackLLM(networks, maps, reference)
        logits, tokens = model.member_logits(encoded[reference]), encoded[reference]  # (K, 1, T, V)
        losses = torch.stack([_log_perplexity(s, tokens) for s in logits])
        weights = (-losses / temperature).softmax(dim=0) if mode == "sim" else _greedy(logits, losses, tokens, grid)
    model.register_buffer("weights", weights)
    return model.eval()


def _log_perplexity(logits: Tensor, tokens: Tensor) -> Tensor:
    """Mean cross-entropy of tokens 2, 3, ... in nats; logits (1, T, V), tokens (1, T)."""
    return F.cross_entropy(logits[0, :-1], tokens[0, 1:])


def _greedy(logits: Tensor, losses: Tensor, tokens: Tensor, grid: int) -> Tensor:
    """PackLLM-opt: the weights of models mixed in one after another, by a grid search for each."""
    first, *others = losses.argsort(stable=True).tolist()
    weights, mixed = F.one_hot(torch.tensor(first), len(losses)).to(losses), logits[first]
    for k in others:
        shares = [i / grid for i in range(grid + 1)]  # of what is mixed so far
        results = [_log_perplexity(share * mixed + (1 - share) * logits[k], tokens).item() for share in shares]
        share = shares[results.index(min(results))]
        mixed = share * mixed + (1 - share) * logits[k]
        weights = share * weights
        weights[k] = 1 - share
    return weights


class PackLLM(nn.Module):
    """Language models whose logits are read in one vocabulary and mixed with fixed weights."""

    weights: Tensor

    def __init__(self, networks: Sequence[nn.Module], maps: Sequence[Tensor], reference: int) -> None:
        super().__init__()
        self.members, self.reference = nn.ModuleList(networks), reference
        for k, mapping in enumerate(maps):
            self.register_buffer(f"map_{k}", mapping)

    def member_logits(self, tokens: Tensor) -> Tensor:
        """Every model's logits at the reference tokens, (n, T) -> (K, n, T, V)."""
        maps = [getattr(self, f"map_{k}") for k in range(len(self.members))]
        return torch.stack([member(mapping[tokens])[..., mapping] for member, mapping in zip(self.members, maps)])

    def forward(self, tokens: Tensor) -> Tensor:
        return torch.einsum("k,k...->...", self.weights, self.member_logits(tokens))
