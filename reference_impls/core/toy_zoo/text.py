"""Text with a pattern, written for the zoo by small grammars, and two tokenizers of the same characters."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch

from .data import Task

DOMAINS = ("arithmetic", "rhymes", "code")
CHARACTERS = "\n ()*+,-.:;=_abcdefghijklmnopqrstuvwxyz0123456789"

_ANIMALS = "cat dog owl hen fox cow bee mouse".split()
_PLACES = "tree hill gate barn lake moon".split()
_ACTS = "sat ran sang slept danced hid".split()
_NAMES = "add mix take fold".split()


def corpus(domain: str, length: int, seed: int = 0) -> str:
    """Whole lines of a domain, at least `length` characters: sums of digits, rhymes of animals, or small functions.

    Raises:
        ValueError: for an unknown domain.
    """
    if domain not in DOMAINS:
        raise ValueError(f"domain must be one of {DOMAINS}, got {domain!r}")
    generator = torch.Generator().manual_seed(seed)

    def pick(words: list[str]) -> str:
        return words[int(torch.randint(len(words), (), generator=generator))]

    def line() -> str:
        if domain == "arithmetic":
            a, b = int(pick(list("0123456789"))), int(pick(list("0123456789")))
            return f"{a}+{b}={a + b};"
        if domain == "rhymes":
            return f"the {pick(_ANIMALS)} {pick(_ACTS)} by the {pick(_PLACES)}, hey ho."
        a, b = pick(list("xyz")), pick(list("abc"))
        return f"def {pick(_NAMES)}({a}, {b}): return {a}{pick(list('+-*'))}{b}"

    text = ""
    while len(text) < length:
        text += line() + "\n"
    return text


@dataclass(frozen=True)
class Tokenizer:
    """Greedy tokenizer: the longest piece of the vocabulary that matches is the next token.

    Attributes:
        pieces: token id -> string; every character is a piece, so any text over `CHARACTERS` can be encoded.
    """

    pieces: tuple[str, ...]

    def encode(self, text: str) -> list[int]:
        """Token ids of a text; `"".join(pieces[i] for i in ids)` gives it back."""
        index = {piece: i for i, piece in enumerate(self.pieces)}
        longest = max(map(len, self.pieces))
        ids, at = [], 0
        while at < len(text):
            for length in range(min(longest, len(text) - at), 0, -1):
                if text[at : at + length] in index:
                    break
            else:
                raise ValueError(f"no piece of the vocabulary begins {text[at : at + 10]!r}")
            ids.append(index[text[at : at + length]])
            at += length
        return ids

    def decode(self, ids: list[int]) -> str:
        """The text of token ids."""
        return "".join(self.pieces[i] for i in ids)


def character_tokenizer() -> Tokenizer:
    """One token per character of `CHARACTERS`."""
    return Tokenizer(tuple(CHARACTERS))


def pair_tokenizer(count: int = 24) -> Tokenizer:
    """The characters and the `count` most frequent pairs of letters or digits in the corpora, in another order."""
    text = "".join(corpus(domain, 3000) for domain in DOMAINS)
    pairs = Counter(a + b for a, b in zip(text, text[1:]) if a.isalnum() and b.isalnum())
    frequent = sorted(pairs, key=lambda pair: (-pairs[pair], pair))[:count]
    return Tokenizer((*frequent, *reversed(CHARACTERS)))


def text_task(domain: str, tokenizer: Tokenizer, context: int = 24) -> Task:
    """Windows of a domain's text: inputs (n, context) token ids, targets the same moved by one token.

    The texts of train (5000 characters), val and test (1500 each) are drawn apart from one another.
    """
    parts = []
    for seed, length in ((0, 5000), (1, 1500), (2, 1500)):
        ids = torch.tensor(tokenizer.encode(corpus(domain, length, seed)))
        windows = ids[: (len(ids) - 1) // context * context + 1].unfold(0, context + 1, context)
        parts.append((windows[:, :-1].contiguous(), windows[:, 1:].contiguous()))
    return Task(domain, *parts)
