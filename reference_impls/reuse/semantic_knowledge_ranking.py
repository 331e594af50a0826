r"""Semantic re-ranking with a knowledge-fusion reader (banerjee2020knowledge).

To answer a multiple-choice question, facts are first retrieved by the words they share with the question and an option. A learned
model then re-ranks them by whether they are relevant, whatever their words. The reader encodes each option twice, with the
question alone and together with the best facts, and fuses the two representations before it scores the option: what the model
knows and what it is told.

Notation: q a question, o an option, f a fact; E the encoder of token sequences; r(q, o, f) the relevance; h_0 = E(q o) and h_k =
E(q o f_1 ... f_k) the two representations of an option.

Departures: retrieval is by shared tokens, rare ones counting more, in place of a search engine. The paper's fusion could not be
confirmed; here a linear layer scores h_0, h_k and their product, side by side. Encoders are small and start untrained.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def semantic_knowledge_ranking(
    encoder: nn.Module,
    questions: Tensor,
    options: Tensor,
    answers: Tensor,
    facts: Tensor,
    relevant: Tensor,
    *,
    num_retrieved: int = 10,
    num_facts: int = 2,
    rerank: bool = True,
    fuse: bool = True,
    ranking_steps: int = 300,
    num_steps: int = 300,
    lr: float = 3e-3,
    batch_size: int = 32,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> nn.Module:
    r"""Train a relevance model and a reader that fuses an option's meaning with and without facts.

    $$
    \min_r\ \mathrm{BCE}\big(r(q, o, f),\ \mathbb{1}\{f \text{ relevant}\}\big), \qquad
    s(q, o) = u^\top [h_0;\ h_k;\ h_0 \odot h_k], \qquad
    \min\ -\log \frac{e^{s(q, o^*)}}{\sum_o e^{s(q, o)}}
    $$

    Args:
        encoder: the architecture of E, maps token numbers (n, T), 0 for padding, to vectors (n, d); two copies are trained.
        questions: (n, T_q) token numbers.
        options: (n, O, T_o) token numbers.
        answers: (n,) number of the right option.
        facts: (m, T_f) token numbers, the corpus.
        relevant: (n,) number of the fact that answers the question, -1 if none does; for training the relevance only.
        num_retrieved: facts retrieved by shared tokens. Default 10: for toys.
        num_facts: k, facts that the reader sees. Default 2: for toys.
        rerank: False leaves out the semantic ranking: the reader sees the facts that share most tokens. Default True: the method.
        fuse: False leaves out h_0: the reader only sees the option with the facts. Default True: the knowledge fusion model.
        ranking_steps: steps of the relevance model (Adam). Default 300: for toys.
        num_steps: steps of the reader. Default 300: for toys.
        lr: step size of both. Default 3e-3: for toys.
        batch_size: questions a step. Default 32: for toys.
        generator: draws initial layers, batches and irrelevant facts. Default None: a generator with seed 0.
        progress: called with the step, counted over both trainings, and the loss.

    Returns:
        A network from (questions, options) to scores (n, O); `rank(questions, options)` gives the numbers of the facts used.

    Raises:
        ValueError: tensors of other lengths, more facts asked for than there are.

    Example:
        Fact 1 shares the rare token 9 with the query (weight log 3 / 2), fact 0 only the common token 5 (log 1).

        >>> corpus = torch.tensor([[5, 6], [5, 9], [5, 7]])
        >>> overlap(torch.tensor([[5, 9, 0]]), corpus)
        tensor([[0.0000, 1.0986, 0.0000]])

    References:
        banerjee2020knowledge, the sections on semantic knowledge ranking and on the knowledge fusion model.
    """
    if not len(questions) == len(options) == len(answers) == len(relevant) or not 1 <= num_facts <= num_retrieved <= len(facts):
        raise ValueError(
            f"received {len(questions)} questions, {len(options)} options, {len(answers)} answers "
            f"and {len(relevant)} relevant facts, and {num_facts} of {num_retrieved} facts of {len(facts)}; "
            f"one of each for a question and no more facts than there are are needed"
        )
    generator = generator or torch.Generator().manual_seed(0)
    model = Reader(encoder, facts, num_retrieved, num_facts, rerank, fuse, generator)
    queries = _join(questions, options)  # (n, O, T)
    right = queries[torch.arange(len(queries)), answers]  # the question with its right option
    batch = lambda pool: pool[torch.randint(len(pool), (batch_size,), generator=generator).to(facts.device)]  # noqa: E731
    known = (relevant >= 0).nonzero()[:, 0]

    found = overlap(right, facts).topk(num_retrieved, dim=1).indices
    optimizer = torch.optim.Adam([*model.judge.parameters(), model.weight], lr=lr)
    for step in range(ranking_steps if rerank and len(known) else 0):  # relevance: the right fact against one of those retrieved
        chosen = batch(known)
        other = found[chosen, torch.randint(num_retrieved, chosen.shape, generator=generator).to(facts.device)]
        pairs = torch.cat([relevant[chosen], other])
        truth = (pairs == torch.cat([relevant[chosen]] * 2)).float()
        loss = F.binary_cross_entropy_with_logits(model.relevance(torch.cat([right[chosen]] * 2), facts[pairs]), truth)
        _step(optimizer, loss, progress, step)

    with torch.no_grad():
        used = torch.cat([model.rank(questions[i : i + 64], options[i : i + 64]) for i in range(0, len(questions), 64)])
    optimizer = torch.optim.Adam([*model.read.parameters(), model.score], lr=lr)
    for step in range(num_steps):
        chosen = batch(torch.arange(len(queries), device=facts.device))
        loss = F.cross_entropy(model.scores(queries[chosen], used[chosen]), answers[chosen])
        _step(optimizer, loss, progress, step + ranking_steps * rerank)
    return model.eval()


class Reader(nn.Module):
    """Retrieval, relevance model and knowledge-fusion reader over one corpus."""

    def __init__(
        self, encoder: nn.Module, facts: Tensor, num_retrieved: int, num_facts: int, rerank: bool, fuse: bool, generator
    ) -> None:
        super().__init__()
        self.judge, self.read = copy.deepcopy(encoder), copy.deepcopy(encoder)
        self.num_retrieved, self.num_facts, self.rerank, self.fuse = num_retrieved, num_facts, rerank, fuse
        self.register_buffer("facts", facts)
        with torch.no_grad():
            width = encoder(facts[:1]).shape[1]
        self.weight = nn.Parameter((torch.randn(width, generator=generator) / width**0.5).to(facts.device))
        self.score = nn.Parameter((torch.randn(3 * width, generator=generator) / width**0.5).to(facts.device))

    def relevance(self, queries: Tensor, facts: Tensor) -> Tensor:
        """Logit of the relevance of each fact to its query, (n,)."""
        return self.judge(torch.cat([queries, facts], dim=1)) @ self.weight

    def rank(self, questions: Tensor, options: Tensor) -> Tensor:
        """The facts that each option is read with, (n, O, num_facts), the best first."""
        queries = _join(questions, options).flatten(0, 1)
        found = overlap(queries, self.facts).topk(self.num_retrieved, dim=1).indices
        if self.rerank:
            repeated = queries.repeat_interleave(self.num_retrieved, dim=0)
            best = self.relevance(repeated, self.facts[found.flatten()]).reshape(found.shape).argsort(dim=1, descending=True)
            found = found.gather(1, best)
        return found[:, : self.num_facts].unflatten(0, options.shape[:2])

    def scores(self, queries: Tensor, used: Tensor) -> Tensor:
        """Scores of options (n, O, T) read with the given facts (n, O, k)."""
        told = torch.cat([queries, self.facts[used].flatten(2)], dim=2)
        alone, informed = self.read(queries.flatten(0, 1)), self.read(told.flatten(0, 1))
        alone = alone if self.fuse else torch.zeros_like(alone)
        return (torch.cat([alone, informed, alone * informed], dim=1) @ self.score).unflatten(0, queries.shape[:2])

    @torch.no_grad()
    def forward(self, questions: Tensor, options: Tensor) -> Tensor:
        return self.scores(_join(questions, options), self.rank(questions, options))


def overlap(queries: Tensor, facts: Tensor) -> Tensor:
    """How much facts share with queries, (n, T) and (m, T_f) -> (n, m): the rarity of each shared token, summed."""
    size = int(max(queries.max(), facts.max())) + 1
    words = (torch.arange(size, device=facts.device) > 0).float()  # 0 is padding
    present = lambda ids: F.one_hot(ids, size).amax(dim=1) * words  # noqa: E731
    rarity = (len(facts) / present(facts).sum(0).clamp_min(1)).log()
    return (present(queries) * rarity) @ present(facts).T


def _join(questions: Tensor, options: Tensor) -> Tensor:
    return torch.cat([questions.unsqueeze(1).expand(-1, options.shape[1], -1), options], dim=2)


def _step(optimizer: torch.optim.Optimizer, loss: Tensor, progress: Callable[[int, float], None] | None, step: int) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if progress is not None:
        progress(step, loss.item())
