r"""Branch-Train-Merge, ELMForest (li2022btm).

A set of expert language models grows without any exchange between them while they train. Branch: a new expert starts from the
seed model or, once there are experts, from their parameters averaged by how likely each of them finds the new domain. Train: it
goes on on its own domain only. Merge: it joins the set. To answer, the experts' predictions are averaged with the probability
that the text so far belongs to each one's domain, under a prior cached from a few texts; or their parameters are averaged into
one model.

Notation: p(x_t | x_<t, D = j) expert j's prediction, p(D = j) the prior over domains, p(D = j | x_<t) the posterior, alpha the
rate of the moving average by which the prior is estimated.

Departures: as in the authors' code, the prior is the moving average of each text's posterior, averaged over its positions; the
paper writes an exponentially decaying sum over texts. The compute split between seed model and experts is the caller's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reference_impls.core.state_dict import StateDict, linear_combination, to_state_dict, to_vector

Batch = tuple[Tensor, Tensor]


def branch_train_merge(
    network: nn.Module,
    base: StateDict,
    domains: Sequence[Iterable[Batch]],
    *,
    experts: Sequence[StateDict] = (),
    num_steps: int = 100,
    lr: float = 3e-3,
    progress: Callable[[int, float], None] | None = None,
) -> ELMForest:
    r"""Grow a forest of expert language models by one expert for each domain.

    $$
    \theta_{\text{new}} \leftarrow \sum_j p(D = j \mid \text{domain})\, \theta_j \ \text{ or }\ \theta_0, \qquad
    p(x_t \mid x_{<t}) = \sum_j p(x_t \mid x_{<t}, D = j)\,
    \frac{p(x_{<t} \mid D = j)\, p(D = j)}{\sum_k p(x_{<t} \mid D = k)\, p(D = k)}
    $$

    Args:
        network: the architecture, maps token numbers (n, T) to logits (n, T, V) of the next token.
        base: $\theta_0$, the seed model, from which the first experts branch.
        domains: for each new expert its training data, pairs (tokens (n, T), the same moved by one (n, T)).
        experts: the experts there are already; new ones then branch from their average. Default none: a first round.
        num_steps: optimiser steps (Adam) for each new expert, one batch each. Default 100: for toys.
        lr: step size. Default 3e-3: for toys.
        progress: called with the step, counted over all new experts, and the loss.

    Returns:
        A network from token numbers to log-probabilities (n, T, V) of the next token. `cache_prior(batches)` estimates its prior,
        `average(weights)` gives one model's state dict, `states` are the experts', old ones first.

    Raises:
        ValueError: no domain, or a domain without data.

    Example:
        Experts that expect 0 with probability 0.9 and 0.2, and a domain of zeros. After one more 0 the first is 0.9 / 1.1 = 0.818
        likely, after two 0.81 / 0.85 = 0.953. So the third branches from 0.953 log 0.9 + 0.047 log 0.2 = -0.176.

        >>> class Unigram(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.logits = nn.Parameter(torch.zeros(2))
        ...     def forward(self, tokens):
        ...         return self.logits.expand(*tokens.shape, 2)
        >>> states = [{"logits": torch.tensor(p).log()} for p in ([0.9, 0.1], [0.2, 0.8])]
        >>> zeros = torch.zeros(1, 3, dtype=torch.long)
        >>> ELMForest(Unigram(), states).posterior(zeros)[0]
        tensor([[0.5000, 0.8182, 0.9529]])
        >>> forest = branch_train_merge(Unigram(), states[0], [[(zeros, zeros)]], experts=states, num_steps=0)
        >>> forest.states[2]["logits"]
        tensor([-0.1761, -2.2047])

    References:
        li2022btm, the sections on the ELMForest (ensembling, cached prior, parameter averaging) and on branch, train, merge.
    """
    data = [list(domain) for domain in domains]
    if not data or not all(data):
        raise ValueError(f"received {len(data)} domains of {[len(d) for d in data]} batches; each needs at least one")
    forest = [dict(state) for state in experts]
    for number, batches in enumerate(data):
        student = copy.deepcopy(network).requires_grad_(True)
        student.load_state_dict(base)
        if experts:  # branch
            posterior = ELMForest(network, experts).domain_posterior(batches)
            student.load_state_dict(_average(experts, posterior.tolist()))
        student.train()
        optimizer = torch.optim.Adam(student.parameters(), lr=lr)
        for step in range(num_steps):  # train
            tokens, targets = batches[step % len(batches)]
            loss = F.cross_entropy(student(tokens).flatten(0, 1), targets.flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if progress is not None:
                progress(number * num_steps + step, loss.item())
        forest.append({key: tensor.detach().clone() for key, tensor in student.state_dict().items()})  # merge
    return ELMForest(network, forest)


class ELMForest(nn.Module):
    """Expert language models, averaged by how likely the text so far belongs to each one's domain.

    Args:
        network: their architecture.
        states: the experts' state dicts.
        top_k: experts that take part, those of largest posterior. Default None: all.
    """

    def __init__(self, network: nn.Module, states: Sequence[StateDict], top_k: int | None = None) -> None:
        super().__init__()
        self.members = nn.ModuleList(copy.deepcopy(network).requires_grad_(False) for _ in states)
        for member, state in zip(self.members, states):
            member.load_state_dict(state)
        self.top_k = len(states) if top_k is None else top_k
        first = next(iter(states[0].values()))
        self.register_buffer("prior", torch.full((len(states),), 1 / len(states), device=first.device))
        self.eval()

    @property
    def states(self) -> list[dict[str, Tensor]]:
        return [member.state_dict() for member in self.members]

    def _log_probabilities(self, tokens: Tensor) -> Tensor:
        return torch.stack([member(tokens).log_softmax(dim=-1) for member in self.members])  # (K, n, T, V)

    def posterior(self, tokens: Tensor) -> Tensor:
        """p(D = j | x_<=t) at every position t of tokens (n, T), shape (K, n, T): Bayes' rule."""
        return self._posterior(self._log_probabilities(tokens), tokens)

    def _posterior(self, log_p: Tensor, tokens: Tensor) -> Tensor:
        seen = log_p[:, :, :-1].gather(3, tokens[None, :, 1:, None].expand(len(log_p), -1, -1, 1)).squeeze(3)
        evidence = F.pad(seen.cumsum(dim=2), (1, 0))  # nothing is known at the first token
        scores = evidence + self.prior.log()[:, None, None]
        kept = scores >= scores.topk(self.top_k, dim=0).values[-1:]
        return scores.masked_fill(~kept, -torch.inf).softmax(dim=0)

    def forward(self, tokens: Tensor) -> Tensor:
        log_p = self._log_probabilities(tokens)
        posterior = self._posterior(log_p, tokens).unsqueeze(3)
        return (posterior * log_p.exp()).sum(dim=0).clamp_min(1e-30).log()

    @torch.no_grad()
    def cache_prior(self, batches: Iterable[Batch], alpha: float = 0.3) -> Tensor:
        """Estimate the prior from texts of the target domain by a moving average of their posteriors, and keep it.

        The rate is the authors' 0.3; the average starts with the first text.
        """
        self.prior.fill_(1 / len(self.prior))
        average = None
        for tokens, _ in batches:
            for text in self.posterior(tokens).mean(dim=2).T:  # (K,) for each text
                average = text if average is None else (1 - alpha) * average + alpha * text
        if average is None:
            raise ValueError("received no texts; the prior needs at least one")
        self.prior.copy_(average)
        return self.prior

    @torch.no_grad()
    def domain_posterior(self, batches: Iterable[Batch]) -> Tensor:
        """Mean over texts of the posterior after the whole text, (K,)."""
        return torch.cat([self.posterior(tokens)[:, :, -1] for tokens, _ in batches], dim=1).mean(dim=1)

    def average(self, weights: Sequence[float] | None = None) -> dict[str, Tensor]:
        """One model: the experts' parameters averaged with the given weights, by default the prior."""
        return _average(self.states, self.prior.tolist() if weights is None else weights)


def _average(states: Sequence[StateDict], weights: Sequence[float]) -> dict[str, Tensor]:
    return to_state_dict(linear_combination([to_vector(state) for state in states], weights), like=states[0])
