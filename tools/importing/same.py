"""When the title, or a word, of a list is that of the catalog."""

from __future__ import annotations

import re
import unicodedata

from tools.people import alike, split
from tools.records import Paper
from tools.titles import words


def agrees(title: str, paper: Paper) -> bool:
    """Whether a title, perhaps with a name or authors around it, is one of the paper's."""
    now = words(title)
    return any(
        "".join(now) == "".join(known) or contains(now, known) or contains(now, words(known_title.partition(":")[2]))
        for known_title in [paper.title, *paper.aliases]
        if (known := words(known_title))
    ) or any("".join(now) == "".join(words(t.partition(":")[2])) for t in [paper.title, *paper.aliases] if ":" in t)


def marks(title: str) -> str:
    """The title with its hyphens and marks, without capitals and the kinds of quotes and dashes."""
    plain = unicodedata.normalize("NFKD", title).casefold().replace("–", "-").replace("—", "-").replace("--", "-")
    return "".join(c for c in plain if not unicodedata.combining(c) and c not in " '’‘`\"“”:.,;?!$^{}\\")


def cased(title: str) -> list[str]:
    """The names in a title that have a capital inside: SAM-CLIP, ZipIt."""
    return [word for word in re.findall(r"[\w-]+", title) if re.search(r"[a-z0-9A-Z][A-Z]", word) and not title.isupper()]


def contains(now: list[str], known: list[str]) -> bool:
    return len(known) > 3 and f" {' '.join(known)} " in f" {' '.join(now)} "


def is_cut(now: list[str], whole: list[str]) -> bool:
    return 0 < len(now) < len(whole) and (whole[: len(now)] == now or whole[-len(now) :] == now)


def overlap(a: list[str], b: list[str]) -> float:
    return len(set(a) & set(b)) / max(1, len(set(a) | set(b)))


def misspelt(word: str, right: str) -> bool:
    """One letter wrong, missing, too much or out of place, in words that are long enough to tell."""
    if word == right or min(len(word), len(right)) < 4 or max(len(word), len(right)) > 60:
        return False
    if sorted(word) == sorted(right):
        return len(word) > 4
    short = min(len(word), len(right))
    start = next((i for i in range(short) if word[i] != right[i]), short)
    end = next((i for i in range(short - start) if word[-1 - i] != right[-1 - i]), short - start)
    return max(len(word), len(right)) - start - end == 1 and not (word.rstrip("s") == right.rstrip("s"))


def authors(listed: list[str], known: list[str], cut: bool) -> str:
    """What is wrong with a list of authors, in words; nothing where it is right or is no list of these authors.

    Initials are right, and so is a list that says "et al." and then stops.
    """
    left, order, foreign = dict(enumerate(known)), [], []
    for name in listed:
        at = next((n for n, other in left.items() if _one_person(name, other)), None)
        if at is None:
            foreign.append(name)
        else:
            order.append(at)
            del left[at]
    if len(order) < max(1, len(listed) / 2):
        return ""
    slips = {name: n for name in foreign for n in left if misspelt("".join(words(name)), "".join(words(known[n])))}
    missing = [] if cut else [name for n, name in left.items() if n not in slips.values()]
    said = [f"{name} for {known[n]}" for name, n in slips.items()]
    said += [f"{name} is no author" for name in foreign if name not in slips]
    said += [f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"] if missing else []
    return "; ".join(said) or ("the order differs" if order != sorted(order) else "")


def _one_person(a: str, b: str) -> bool:
    (family, given), (other, names) = split(a), split(b)
    if family != other or not given or not names:
        return "".join(words(a)) == "".join(words(b)) or (family == other and not given)
    short, long = sorted(("".join(given[0]), "".join(names[0])), key=len)
    return alike(given, names) or (len(short) > 2 and long.startswith(short))


def share_authors(a: list[str], b: list[str]) -> bool:
    """Whether the first authors of two works are one person."""
    return bool(a and b) and _one_person(a[0], b[0])
