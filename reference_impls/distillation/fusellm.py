r"""FuseLLM (wan2024fusellm).

Language models of different vocabulary cannot be averaged, but on a given text each of them predicts every token, and predictions
can be brought together. Every source's token distributions are translated to the target's tokens: the two token sequences are
aligned with the least total edit distance, and each source token counts for the target token that is spelled most alike. For
every text the distributions are fused, by taking those of the source that predicts the text best or a weighted mean, and the
target model goes on training on the text itself and towards the fused distributions.

Notation: t a text of N target tokens; P_t the target's distributions, one row for each token after the first; P_t^j those of
source j, aligned; Q_t the fused ones; CE_j the mean cross-entropy of source j on the text, in its own tokens; lambda the share of
the language-model loss.

Departures: source tokens that map to one target token add their probabilities, so that rows stay distributions; the authors' code
keeps the ten largest logits and, of those that share a target token, only the first. The formula of AvgCE's weights is the
authors' code's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Tokenizer(Protocol):
    """What a tokenizer offers here: its tokens by number, and a text's token numbers."""

    pieces: Sequence[str]

    def encode(self, text: str) -> list[int]: ...


def fusellm(
    network: nn.Module,
    sources: Sequence[nn.Module],
    texts: Sequence[str],
    *,
    tokenizer: Tokenizer,
    source_tokenizers: Sequence[Tokenizer],
    fusion: Literal["min_ce", "avg_ce"] = "min_ce",
    match: Literal["edit", "exact"] = "edit",
    lm_weight: float = 0.9,
    include_target: bool = True,
    batch_size: int = 8,
    num_steps: int = 200,
    lr: float = 1e-3,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> nn.Module:
    r"""Train a language model on texts and towards the fused predictions of others.

    $$
    \mathcal{L} = \lambda\, \mathcal{L}_{\mathrm{CLM}} + (1 - \lambda)\, \mathbb{E}_t\, \mathrm{KL}\big(Q_t \,\|\, P_t\big),
    Q_t = \begin{cases} P_t^{j^*},\ \ j^* = \arg\min_j \mathrm{CE}_j & \text{MinCE} \\
    \sum_j w_j P_t^j,\ \ w = \mathrm{softmax}(e^{-\mathrm{CE}_1}, \dots, e^{-\mathrm{CE}_K}) & \text{AvgCE} \end{cases}
    $$

    Args:
        network: the target, maps token numbers (n, T) to logits (n, T, V) of the next token.
        sources: language models of the same kind, each with its own vocabulary.
        texts: the training texts.
        tokenizer: of the target: `pieces`, its tokens as strings, and `encode(text)`, a list of token numbers.
        source_tokenizers: one for each source.
        fusion: "min_ce" or "avg_ce". Default "min_ce": the paper's main results.
        match: "edit" matches tokens by least edit distance, "exact" only equal ones (the baseline EM). Default
            "edit": the paper's token alignment.
        lm_weight: $\lambda$ in [0, 1]. Default 0.9: the authors' training command.
        include_target: whether the target as it was before training is a source too. Default True: the authors'
            training command.
        batch_size: texts a step. Default 8: for toys.
        num_steps: optimiser steps (Adam). Default 200: for toys.
        lr: step size. Default 1e-3: for toys.
        generator: order of the texts. Default None: a generator with seed 0.
        progress: called with step and loss.

    Returns:
        A trained copy of `network`, in evaluation mode.

    Raises:
        ValueError: no source, no text of two tokens, another number of tokenizers, an unknown option, lm_weight outside [0, 1].

    Example:
        The source has tokens of two letters. "ab" counts for "a" (the first of the two most alike), and "cd" for "c".

        >>> vocabulary_map(["ab", "cd", "d"], ["a", "b", "c", "d"]).tolist()
        [0, 2, 3]
        >>> align_tokens(["a", "b", "d"], ["ab", "d"])
        [[0], [0], [1]]

    References:
        wan2024fusellm, the losses, token alignment, MinCE and AvgCE; authors' code for lambda.
    """
    if fusion not in ("min_ce", "avg_ce") or match not in ("edit", "exact"):
        raise ValueError(f"fusion is {fusion!r} (min_ce, avg_ce) and match is {match!r} (edit, exact)")
    if not sources or len(sources) != len(source_tokenizers):
        raise ValueError(f"received {len(sources)} sources and {len(source_tokenizers)} tokenizers; one for each is needed")
    if not 0 <= lm_weight <= 1:
        raise ValueError(f"lm_weight is {lm_weight}; it must lie in [0, 1]")
    device = next(network.parameters()).device
    tokens = [torch.tensor(tokenizer.encode(text), device=device) for text in texts]
    kept = [i for i, ids in enumerate(tokens) if len(ids) > 1]
    if not kept:
        raise ValueError(f"received {len(texts)} texts, none of two tokens; at least one is needed")

    members = [(network, tokenizer)] * include_target + list(zip(sources, source_tokenizers))
    maps = [vocabulary_map(other.pieces, tokenizer.pieces, match).to(device) for _, other in members]
    fused = []
    for i in kept:  # the sources' view of each text never changes: computed once
        views = [aligned_distributions(m, t, v, texts[i], tokens[i], tokenizer) for (m, t), v in zip(members, maps)]
        fused.append(fuse([rows for rows, _ in views], torch.stack([ce for _, ce in views]), fusion))

    student = copy.deepcopy(network).train().requires_grad_(True)
    optimizer = torch.optim.Adam(student.parameters(), lr=lr)
    generator = generator or torch.Generator().manual_seed(0)
    ids = nn.utils.rnn.pad_sequence([tokens[i] for i in kept], batch_first=True)  # (texts, T), padded on the right
    rows = nn.utils.rnn.pad_sequence(fused, batch_first=True)  # (texts, T - 1, V)
    mask = nn.utils.rnn.pad_sequence([torch.ones(len(q), device=device) for q in fused], batch_first=True)
    for step in range(num_steps):
        chosen = torch.randperm(len(kept), generator=generator)[:batch_size].to(device)
        log_p = student(ids[chosen, :-1]).log_softmax(dim=-1)
        clm = -log_p.gather(2, ids[chosen, 1:, None]).squeeze(2)
        kl = F.kl_div(log_p, rows[chosen], reduction="none").sum(dim=-1)
        loss = ((lm_weight * clm + (1 - lm_weight) * kl) * mask[chosen]).sum() / mask[chosen].sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if progress is not None:
            progress(step, loss.item())
    return student.eval()


@torch.no_grad()
def aligned_distributions(
    network: nn.Module, own: Tokenizer, mapping: Tensor, text: str, tokens: Tensor, tokenizer: Tokenizer
) -> tuple[Tensor, Tensor]:
    """A source's distributions on the target's tokens, (N - 1, V), and its cross-entropy in its own tokens."""
    ids = torch.tensor(own.encode(text), device=tokens.device)
    log_p = network(ids[None, :-1])[0].log_softmax(dim=-1)  # row u predicts token u + 1
    cross_entropy = F.nll_loss(log_p, ids[1:])
    known = mapping >= 0
    translated = log_p.new_zeros(len(log_p), len(tokenizer.pieces))
    translated.index_add_(1, mapping[known], log_p.exp()[:, known])
    translated = translated / translated.sum(dim=1, keepdim=True).clamp_min(1e-9)
    rows = F.one_hot(tokens[1:], len(tokenizer.pieces)).to(log_p.dtype)  # where nothing can be translated: the text itself
    pairs = align_tokens([tokenizer.pieces[i] for i in tokens.tolist()], [own.pieces[i] for i in ids.tolist()])
    for t, partners in enumerate(pairs[1:]):
        if len(partners) == 1 and partners[0] > 0 and mapping[ids[partners[0]]] == tokens[t + 1]:
            rows[t] = translated[partners[0] - 1]
    return rows, cross_entropy


def fuse(distributions: Sequence[Tensor], cross_entropies: Tensor, fusion: str) -> Tensor:
    """MinCE or AvgCE of the sources' distributions on one text."""
    if fusion == "min_ce":
        return distributions[int(cross_entropies.argmin())]
    weights = cross_entropies.neg().exp().softmax(dim=0)
    return sum(w * rows for w, rows in zip(weights, distributions))


def vocabulary_map(source: Sequence[str], target: Sequence[str], match: str = "edit") -> Tensor:
    """For each source token the target token of least edit distance (the first of equals); -1 for no match."""
    index = {token: i for i, token in reversed(list(enumerate(target)))}
    nearest = lambda token: min(range(len(target)), key=lambda i: edit_distance(token, target[i]))  # noqa: E731
    return torch.tensor([index.get(token, -1 if match == "exact" else nearest(token)) for token in source])


def align_tokens(
    target: Sequence[str], source: Sequence[str], distance: Callable[[str, str], float] | None = None
) -> list[list[int]]:
    """For each target token the source tokens on the monotone path of least total distance (None: edit distance)."""
    distance = distance or edit_distance
    cost: dict[tuple[int, int], float] = {(-1, -1): 0.0}
    came_from = {}
    for t, u in ((t, u) for t in range(len(target)) for u in range(len(source))):
        steps = [(t - 1, u - 1), (t - 1, u), (t, u - 1)]
        came_from[t, u] = min(steps, key=lambda s: cost.get(s, float("inf")))
        cost[t, u] = cost.get(came_from[t, u], float("inf")) + distance(target[t], source[u])
    pairs: list[list[int]] = [[] for _ in target]
    place = (len(target) - 1, len(source) - 1)
    while place != (-1, -1):
        pairs[place[0]].insert(0, place[1])
        place = came_from[place]
    return pairs


@lru_cache(maxsize=100_000)
def edit_distance(a: str, b: str) -> int:
    """Least number of letters inserted, deleted or replaced that turns one string into the other (Levenshtein)."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]
