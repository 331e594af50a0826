r"""FuseChat, its first stage: pairwise fusion of chat models (wan2024chat).

Chat models of different size, architecture and vocabulary cannot be averaged. One of them, the pivot, is paired with
each of the others. On every dialogue the pair's token distributions are brought to the pivot's tokens and fused:
those of the model that predicts the answer better are kept. A copy of the pivot is trained on the answers and towards
the fused distributions, one copy for each pair. The copies have one shape and one origin, so that a second stage can
merge them in parameter space. Which token of a source counts for which token of the pivot is learned from how often
they meet when the texts are aligned, not from their spelling alone.

Notation: v the pivot, s_j source j, t_j target j; for a dialogue, P the distributions of the pivot on its answer, one
row for each token, and P_j those of source j, aligned; C_j[a, b] how often token a of the pivot is aligned with token
b of source j; lambda the share of the answer.

Departures: whole distributions are translated, the authors' code keeps the ten largest logits. That the most frequent
partner is taken is how we read "statistics-based"; it is not confirmed (see `match` for what the authors' code does).
Of the weights where several source tokens make up one token of the pivot only that they come from C_j is confirmed;
here they are C_j divided by its sum.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reference_impls.distillation.fusellm import Tokenizer, align_tokens, edit_distance


def fusechat(
    network: nn.Module,
    sources: Sequence[nn.Module],
    dialogues: Sequence[tuple[str, str]],
    *,
    tokenizer: Tokenizer,
    source_tokenizers: Sequence[Tokenizer],
    match: Literal["frequency", "distance"] = "frequency",
    lm_weight: float = 0.9,
    batch_size: int = 8,
    num_steps: int = 200,
    lr: float = 1e-3,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> nn.ModuleList:
    r"""Train one copy of a pivot for each source: on the answers, and towards what the pair predicts of them.

    $$
    \mathcal{L}_j = \lambda\, \mathcal{L}_{\mathrm{SFT}}
        + (1 - \lambda)\, \mathbb{E}\; \mathrm{KL}\big(Q_j \,\|\, P_{t_j}\big), \qquad
    Q_j = \begin{cases} P & \mathrm{CE}(P) \le \mathrm{CE}(P_j) \\ P_j & \text{otherwise} \end{cases}
    $$

    Args:
        network: the pivot, maps token numbers (n, T) to logits (n, T, V) of the next token.
        sources: language models of the same kind, each with its own vocabulary.
        dialogues: pairs of an instruction and an answer; only the answers' tokens are learned.
        tokenizer: of the pivot: `pieces`, its tokens as strings, and `encode(text)`, a list of token numbers.
        source_tokenizers: one for each source.
        match: the pivot's token that a source token counts for, unless it has the very same: "frequency" the one it
            is aligned with most often; "distance" the least edit distance times the sigmoid of that frequency (the
            authors' code). Default "frequency": the paper's statistics-based alignment.
        lm_weight: $\lambda$ in [0, 1]. Default 0.9: the authors' training command.
        batch_size: dialogues a step. Default 8: for toys.
        num_steps: optimiser steps (Adam) for each target. Default 200: for toys.
        lr: step size. Default 1e-3: for toys.
        generator: order of the dialogues. Default None: a generator with seed 0.
        progress: called with the step, counted over all targets, and the loss.

    Returns:
        The targets, trained copies of `network` in evaluation mode, one for each source; to be merged by VaRM or SCE.

    Raises:
        ValueError: no source, another number of tokenizers, an unknown option, lm_weight outside [0, 1], no answer.

    Example:
        On "abc" the tokens a and b both meet the source token "ab", and c meets "c".

        >>> alignment_counts([(["a", "b", "c"], ["ab", "c"])], ["a", "b", "c"], ["ab", "c"]).tolist()
        [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]

    References:
        wan2024chat, pairwise knowledge fusion; wan2024fusechat, statistics-based token alignment.
    """
    if not sources or len(sources) != len(source_tokenizers):
        raise ValueError(f"received {len(sources)} sources and {len(source_tokenizers)} tokenizers; each source needs one")
    if not 0 <= lm_weight <= 1 or match not in ("frequency", "distance"):
        raise ValueError(f"lm_weight is {lm_weight}, in [0, 1], and match {match!r}, one of frequency, distance")
    device = next(network.parameters()).device
    texts = [(a + b, len(tokenizer.encode(a))) for a, b in dialogues if a and b]
    if not texts:
        raise ValueError(f"received {len(dialogues)} dialogues, none with an instruction and an answer; at least one is needed")
    tokens = [torch.tensor(tokenizer.encode(text), device=device) for text, _ in texts]
    answers = [torch.arange(1, len(ids), device=device) >= start for ids, (_, start) in zip(tokens, texts)]
    generator = generator or torch.Generator().manual_seed(0)
    pivot, targets, steps = copy.deepcopy(network).eval(), nn.ModuleList(), 0

    for source, own in zip(sources, source_tokenizers):
        fused = _fuse(pivot, copy.deepcopy(source).eval(), texts, tokens, answers, tokenizer, own, match)
        target = copy.deepcopy(network).train()
        optimizer = torch.optim.Adam(target.parameters(), lr=lr)
        padded = [nn.utils.rnn.pad_sequence(part, batch_first=True) for part in (tokens, fused, answers)]
        for _ in range(num_steps):
            chosen = torch.randperm(len(texts), generator=generator)[:batch_size].to(device)
            ids, rows, mask = (part[chosen] for part in padded)
            log_p = target(ids[:, :-1]).log_softmax(dim=-1)
            sft = -log_p.gather(2, ids[:, 1:, None]).squeeze(2)
            kl = F.kl_div(log_p, rows, reduction="none").sum(dim=-1)
            loss = ((lm_weight * sft + (1 - lm_weight) * kl) * mask).sum() / mask.sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if progress is not None:
                progress(steps, loss.item())
            steps += 1
        targets.append(target.eval())
    return targets


@torch.no_grad()
def _fuse(
    pivot: nn.Module, source: nn.Module, texts: list, tokens: list[Tensor], answers: list[Tensor],
    tokenizer: Tokenizer, own: Tokenizer, match: str,
) -> list[Tensor]:  # fmt: skip
    """MinCE: for each dialogue the distributions of the pivot or of the source, whichever predicts its answer better."""
    pieces = lambda t, ids: [t.pieces[i] for i in ids]  # noqa: E731
    own_tokens = [torch.tensor(own.encode(text), device=ids.device) for (text, _), ids in zip(texts, tokens)]
    sequences = [(pieces(tokenizer, a), pieces(own, b)) for a, b in zip(tokens, own_tokens)]
    counts = alignment_counts(sequences, tokenizer.pieces, own.pieces).to(tokens[0].device)
    mapping = statistics_map(counts, tokenizer.pieces, own.pieces, match)
    fused = []
    for ids, own_ids, answer, (text, start), pair in zip(tokens, own_tokens, answers, texts, sequences):
        log_pivot = pivot(ids[None, :-1])[0].log_softmax(dim=-1)
        log_source = source(own_ids[None, :-1])[0].log_softmax(dim=-1)  # row u predicts token u + 1
        own_start = len(own.encode(text[: len("".join(pair[0][:start]))]))  # where the answer begins in the source's tokens
        ce = F.nll_loss(log_pivot[answer], ids[1:][answer])
        ce_source = F.nll_loss(log_source[own_start - 1 :], own_ids[own_start:])
        fused.append(log_pivot.exp() if ce <= ce_source else aligned_rows(log_source.exp(), pair, ids, own_ids, counts, mapping))
    return fused


def alignment_counts(
    sequences: Sequence[tuple[Sequence[str], Sequence[str]]], pivot: Sequence[str], source: Sequence[str]
) -> Tensor:
    """How often each token of the pivot is aligned with each token of the source on the given texts, (V, V')."""
    rows, columns = ({token: i for i, token in enumerate(pieces)} for pieces in (pivot, source))
    counts = torch.zeros(len(pivot), len(source))
    for a, b in sequences:
        for token, partners in zip(a, align_tokens(a, b, discounted_distance)):
            for u in partners:
                counts[rows[token], columns[b[u]]] += 1
    return counts


def discounted_distance(a: str, b: str) -> float:
    """Edit distance, a tenth of it where one token lies within the other (the authors' code)."""
    return edit_distance(a, b) * (0.1 if a in b or b in a else 1.0)


def statistics_map(counts: Tensor, pivot: Sequence[str], source: Sequence[str], match: str = "frequency") -> Tensor:
    """For each source token the pivot's token that it counts for; -1 where they never met."""
    index = {token: i for i, token in reversed(list(enumerate(pivot)))}
    mapping = []
    for j, token in enumerate(source):
        met = counts[:, j].nonzero().flatten().tolist()
        if match == "frequency":
            cost = lambda i: (-counts[i, j].item(), edit_distance(pivot[i], token))  # noqa: E731, B023
        else:
            cost = lambda i: (counts[i, j].sigmoid().item() * discounted_distance(pivot[i], token),)  # noqa: E731, B023
        mapping.append(index[token] if token in index else min(met, key=cost) if met else -1)
    return torch.tensor(mapping, device=counts.device)


def aligned_rows(
    rows: Tensor, sequences: tuple[Sequence[str], Sequence[str]], ids: Tensor, own_ids: Tensor, counts: Tensor, mapping: Tensor
) -> Tensor:
    """The source's distributions, one row for each token after its first, on the tokens of the pivot, likewise."""
    size, known = counts.shape[0], mapping >= 0
    translated = rows.new_zeros(len(rows), size).index_add_(1, mapping[known], rows[:, known])
    translated = translated / translated.sum(dim=1, keepdim=True).clamp_min(1e-9)
    out = F.one_hot(ids[1:], size).to(rows.dtype)  # where nothing corresponds: the text itself
    pivot, source = sequences
    for t, partners in enumerate(align_tokens(pivot, source, discounted_distance)[1:]):
        token = pivot[t + 1]
        alike = [u for u in partners if source[u] == token] or [u for u in partners if token in source[u]]
        if alike:  # one token for one, or several of the pivot's for one of the source's
            alike = alike[:1]
        elif "".join(source[u] for u in partners) == token:  # one for several: all parts of it
            alike = partners
        alike = [u for u in alike if u > 0]
        if alike:
            weights = counts[ids[t + 1], own_ids[alike]]
            out[t] = (weights / weights.sum()) @ translated[[u - 1 for u in alike]]
    return out
