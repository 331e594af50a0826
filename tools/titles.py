"""Titles that are nearly the same, in time that grows with the number of titles and not with its square.

Two titles are the same when they agree
- after folding case, accents, spaces and punctuation ("Fine-Tuning" and "Finetuning"),
- or one of them is the other without its name before a colon ("TIES-Merging: Resolving ..." and "Resolving ..."),
- or they differ in one word that is hardly different (a typing error, a plural, British spelling) or is a small one
  ("the", "of"; changed, added or left out).
Words with digits and Roman numerals must agree: parts 1 and 2 of a work are two works. Two changed words are not found.

How: every title is filed under itself and under itself without each of its words. Titles that differ in one word meet
under one of these keys; only titles that meet are compared, and a key remembers at most `BUCKET` of them.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from difflib import SequenceMatcher

BUCKET = 8
FEWEST_WORDS = 4  # shorter titles must agree as a whole
SMALL = frozenset("a an and as at by for from in into is it its of on or the to toward towards via with without".split())
ROMAN = re.compile(r"[ivx]+")


def words(title: str) -> list[str]:
    """Lower-case words without accents and punctuation."""
    plain = unicodedata.normalize("NFKD", title).casefold()
    return re.findall(r"[^\W_]+", "".join(c for c in plain if not unicodedata.combining(c)))


def stem(word: str) -> str:
    """A word without the commonest endings, so that "averaging" meets "average"."""
    short = re.sub(r"(isations?|izations?|ings?|ation|ions?|ity|ed|es|e|s|al|ies|y)$", "", word) if len(word) > 4 else word
    return short if len(short) > 2 else word


def near_same(titles: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """(later, earlier) for every id whose title is nearly that of an earlier id, once for each pair.

    An id may come with several titles: they belong to one work and are not compared with each other.
    """
    whole: dict[str, str] = {}  # folded title -> its first id
    tails: dict[str, str] = {}  # folded title after the colon -> its first id
    buckets: dict[str, list[tuple[str, list[str]]]] = defaultdict(list)
    for id, title in titles:
        told: set[str] = {id}
        for other in _same(id, title, whole, tails, buckets):
            if other not in told:
                told.add(other)
                yield id, other


def _same(id, title, whole, tails, buckets) -> Iterator[str]:
    now = words(title)
    key = "".join(now)
    after = words(title.partition(":")[2])
    tail = "".join(after) if len(after) >= FEWEST_WORDS else ""
    for other in (whole.get(key), tails.get(key), whole.get(tail)):
        if other is not None:
            yield other
    whole.setdefault(key, id)
    if tail:
        tails.setdefault(tail, id)
    if len(now) < FEWEST_WORDS:
        return
    for leave_out in range(-1, len(now)):
        without = " ".join(word for position, word in enumerate(now) if position != leave_out)
        bucket = buckets[without]
        for other, before in bucket:
            if other != id and _hardly_differ(now, before):
                yield other
        if len(bucket) < BUCKET:
            bucket.append((id, now))


def _hardly_differ(a: list[str], b: list[str]) -> bool:
    """Whether two lists of words differ in one word that does not tell two works apart."""
    short = min(len(a), len(b))
    start = next((i for i in range(short) if a[i] != b[i]), short)  # words that agree at the beginning
    end = next((i for i in range(short - start) if a[-1 - i] != b[-1 - i]), short - start)  # and at the end
    left, right = a[start : len(a) - end], b[start : len(b) - end]
    if len(left) > 1 or len(right) > 1:
        return False
    if not left or not right:
        return all(word in SMALL for word in left + right)
    x, y = left[0], right[0]
    if x in SMALL and y in SMALL:
        return True
    if any(re.search(r"\d", word) or ROMAN.fullmatch(word) for word in (x, y)):
        return False
    return min(len(x), len(y)) >= 4 and SequenceMatcher(None, x, y, autojunk=False).ratio() >= 0.8
