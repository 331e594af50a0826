r"""MergeDistill (khanuja2021mergedistill).

Masked language models of different languages, each with a vocabulary made for its own, are merged into one student
for all of them. The student's vocabulary is the union of theirs, so every token of a teacher is a token of the
student and nothing has to be aligned. Each teacher reads texts of its own languages, in its own tokens and with some
of them masked, and its largest few predictions for the masked ones are stored. The student then learns from these
stores, and from the masked tokens themselves; the teachers are not needed any more, and no task is looked at.

Notation: V_t the vocabulary of teacher t, V the union, P_t the stored top-k predictions of teacher t for a masked
token, scaled to sum one; P_S the student's; k the number of predictions that are kept; lambda the share of the
distillation loss.

Departures: a masked token is always replaced by the mask, BERT leaves or replaces some by others. The values of
lambda and k are not confirmed; here lambda is 1/2 and k is 8.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reference_impls.distillation.fusellm import Tokenizer


def mergedistill(
    networks: Sequence[nn.Module],
    student: nn.Module,
    corpora: Sequence[Sequence[str]],
    *,
    tokenizers: Sequence[Tokenizer],
    mask_token: str = "[MASK]",
    top_k: int = 8,
    kd_weight: float = 0.5,
    mask_rate: float = 0.15,
    batch_size: int = 16,
    num_steps: int = 200,
    lr: float = 3e-3,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> nn.Module:
    r"""Train one masked language model from the stored predictions of several, on the union of their vocabularies.

    $$
    \mathcal{L} = \lambda \sum_{v \in \mathrm{top}_k} P_t(v) \log \frac{P_t(v)}{P_S(v)} - (1 - \lambda) \log P_S(v^*), \qquad
    V = \bigcup_t V_t
    $$

    averaged over the masked tokens, with $v^*$ the token that was masked.

    Args:
        networks: the teachers, each maps its token numbers (n, T) to logits (n, T, |V_t|) for the token at each
            place.
        student: the same for the union: token numbers (n, T) to logits (n, T, |V|), in the order of
            `union_vocabulary`.
        corpora: for each teacher the texts that it teaches, of its own languages.
        tokenizers: one for each teacher: `pieces`, its tokens as strings, and `encode(text)`, a list of token
            numbers.
        mask_token: the piece that stands for a masked token, in every tokenizer. Default "[MASK]": as in BERT.
        top_k: $k$, predictions stored of each masked token, >= 1. Default 8: not confirmed.
        kd_weight: $\lambda$ in [0, 1]; 0 is training without teachers. Default 0.5: not confirmed.
        mask_rate: share of the tokens of a text that are masked, one at least. Default 0.15: as in BERT.
        batch_size: texts a step, drawn from all corpora together. Default 16: for toys.
        num_steps: optimiser steps (Adam). Default 200: for toys.
        lr: step size. Default 3e-3: for toys.
        generator: draws the masks and the order of the texts. Default None: a generator with seed 0.
        progress: called with step and loss.

    Returns:
        A trained copy of `student`, in evaluation mode.

    Raises:
        ValueError: other numbers of networks, corpora and tokenizers, no text, kd_weight or mask_rate outside [0, 1],
            top_k below 1, a tokenizer without the mask.

    Example:
        Tokens that teachers share are one token of the student.

        >>> from reference_impls.core.toy_zoo import Tokenizer
        >>> pieces, maps = union_vocabulary([Tokenizer(("a", "b")), Tokenizer(("ab", "b", "c"))])
        >>> pieces, [m.tolist() for m in maps]
        (('a', 'b', 'ab', 'c'), [[0, 1], [2, 1, 3]])

    References:
        khanuja2021mergedistill, the sections on the vocabulary, on the teachers' predictions and on the student's training.
    """
    if not networks or len({len(networks), len(corpora), len(tokenizers)}) > 1 or not any(corpora):
        raise ValueError(
            f"received {len(networks)} teachers, {len(corpora)} corpora and {len(tokenizers)} tokenizers; "
            "one of each is needed, and a text"
        )
    if not (0 <= kd_weight <= 1 and 0 <= mask_rate <= 1 and top_k >= 1):
        raise ValueError(f"kd_weight is {kd_weight} and mask_rate {mask_rate}, in [0, 1], and top_k {top_k}, at least 1")
    if any(mask_token not in tokenizer.pieces for tokenizer in tokenizers):
        raise ValueError(f"a tokenizer has no piece {mask_token!r}; every one needs the mask")
    generator = generator or torch.Generator().manual_seed(0)
    _, maps = union_vocabulary(tokenizers)
    store = []  # step 1: the teachers' predictions, once
    for network, texts, tokenizer, mapping in zip(networks, corpora, tokenizers, maps):
        teacher = copy.deepcopy(network).eval()
        for text in texts:
            ids = torch.tensor(tokenizer.encode(text))
            if len(ids):
                mask = tokenizer.pieces.index(mask_token)
                store.append(_predictions(teacher, ids, mask, mapping, top_k, mask_rate, generator))

    student = copy.deepcopy(student).train()  # step 2: the student, from the store alone
    optimizer = torch.optim.Adam(student.parameters(), lr=lr)
    device = next(student.parameters()).device
    for step in range(num_steps):
        chosen = [store[i] for i in torch.randperm(len(store), generator=generator)[:batch_size].tolist()]
        log_p = torch.cat(_masked_rows(student, chosen, device)).log_softmax(dim=-1)  # (masked tokens, |V|)
        truth, index, p = (torch.cat([example[key] for example in chosen]).to(device) for key in ("truth", "index", "p"))
        kd = (p * (p.clamp_min(1e-9).log() - log_p.gather(1, index))).sum(dim=1)
        loss = (kd_weight * kd + (1 - kd_weight) * F.nll_loss(log_p, truth, reduction="none")).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if progress is not None:
            progress(step, loss.item())
    return student.eval()


def union_vocabulary(tokenizers: Sequence[Tokenizer]) -> tuple[tuple[str, ...], list[Tensor]]:
    """All pieces of all tokenizers, each once and in order, and for each tokenizer the numbers of its pieces among them."""
    pieces = tuple(dict.fromkeys(piece for tokenizer in tokenizers for piece in tokenizer.pieces))
    number = {piece: i for i, piece in enumerate(pieces)}
    return pieces, [torch.tensor([number[piece] for piece in tokenizer.pieces]) for tokenizer in tokenizers]


@torch.no_grad()
def _predictions(
    teacher: nn.Module, ids: Tensor, mask: int, mapping: Tensor, top_k: int, mask_rate: float, generator: torch.Generator
) -> dict[str, Tensor]:
    """Mask some tokens of a text and store the teacher's top-k predictions for them, all in the student's numbers."""
    count = max(1, round(mask_rate * len(ids)))
    places = torch.randperm(len(ids), generator=generator)[:count].sort().values
    masked = ids.clone()
    masked[places] = mask
    device = next(teacher.parameters()).device
    logits = teacher(masked[None].to(device))[0, places.to(device)].cpu()
    values, index = logits.topk(min(top_k, logits.shape[1]), dim=1)
    p, index = F.pad(values.softmax(dim=1), (0, top_k - index.shape[1])), F.pad(mapping[index], (0, top_k - index.shape[1]))
    return {"ids": mapping[masked], "places": places, "truth": mapping[ids[places]], "p": p, "index": index}


def _masked_rows(student: nn.Module, examples: Sequence[dict[str, Tensor]], device: torch.device) -> list[Tensor]:
    """The student's logits at the masked places, text by text; texts of one length are read together."""
    rows: list[Tensor] = [torch.empty(0)] * len(examples)
    for length in {len(example["ids"]) for example in examples}:
        which = [i for i, example in enumerate(examples) if len(example["ids"]) == length]
        logits = student(torch.stack([examples[i]["ids"] for i in which]).to(device))
        for i, row in zip(which, logits):
            rows[i] = row[examples[i]["places"].to(device)]
    return rows
