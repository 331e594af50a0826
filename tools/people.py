"""Who wrote what: one person has one spelling, and one work has one record.

Two names are taken for one person where they have the same letters ("Zhi-Hua Zhou", "Zhihua Zhou"), or one family name
and given names that agree as far as both say them ("Y. LeCun", "Yann LeCun"; "Colin Raffel", "Colin A. Raffel"). Where
two people share a co-author, a short form ("Ben", "Benjamin") and a slip of one letter are found too. Those who are
really two are told apart in `catalog/people.yaml`, with the reason. Names written family name first are not found.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from difflib import SequenceMatcher
from itertools import combinations

from tools.catalog import Catalog, Problem
from tools.exporting.names import parts
from tools.titles import FEWEST_WORDS, SMALL, near_same, stem, words

Given = tuple[tuple[str, ...], ...]  # given names, each in the parts that hyphens make

# --- names ------------------------------------------------------------------------------------------------------


def split(name: str) -> tuple[str, Given]:
    """Family name and given names in small letters without accents: "Z.-H. Zhou" is ("zhou", (("z", "h"),))."""
    found = parts(name)
    family = found.get("literal") or " ".join(found[key] for key in ("non-dropping-particle", "family") if key in found)
    given = (tuple(words(word)) for word in found.get("given", "").replace(".-", "-").replace(".", ". ").split())
    return "".join(words(family)), tuple(word for word in given if word)


def alike(a: Given, b: Given) -> bool:
    """Whether two lists of given names may be one person's: each name of the shorter is in the longer, in order."""
    if _letters(a) == _letters(b):
        return True
    short, long = sorted((a, b), key=len)
    if not short or not _fits(short[0], long[0]):
        return False
    rest = iter(long[1:])
    return all(any(_fits(name, other) for other in rest) for name in short[1:])


def _letters(given: Given) -> str:
    return "".join("".join(name) for name in given)


def _fits(a: tuple[str, ...], b: tuple[str, ...]) -> bool:
    """One given name and another or its initials."""
    if "".join(a) == "".join(b):
        return True
    short, long = sorted((a, b), key=lambda name: len("".join(name)))
    initials = all(len(part) == 1 for part in short)
    return initials and (tuple(part[0] for part in long) == short or (len(short) == 1 and long[0][0] == short[0]))


def _near(a: str, b: str, given: tuple[Given, Given]) -> bool:
    """A short form of a given name, or one slip in the whole name."""
    x, y = (name[0][0] if name and len(name[0]) == 1 else "" for name in given)
    if min(len(x), len(y)) >= 3 and x != y and (x.startswith(y) or y.startswith(x)) and len(given[0]) == len(given[1]) == 1:
        return split(a)[0] == split(b)[0]
    a, b = "".join(words(a)), "".join(words(b))
    return min(len(a), len(b)) >= 9 and abs(len(a) - len(b)) < 2 and SequenceMatcher(None, a, b, autojunk=False).ratio() >= 0.93


def names(catalog: Catalog) -> Iterator[Problem]:
    """A person stands in every record under one spelling; two people with like names are told apart in people.yaml."""
    where: dict[str, list[tuple[str, int]]] = defaultdict(list)  # name -> (paper, position)
    for id, paper in sorted(catalog.papers.items()):
        for position, name in enumerate(paper.authors):
            where[name].append((id, position))
    settled = {spelling: name for name, person in catalog.people.items() for spelling in person.spellings}
    told = {frozenset((name, other.name)) for name, person in catalog.people.items() for other in person.not_same}

    def problem(name: str, what: str, mend: str) -> Problem:
        paper, position = where[name][0]
        source = catalog.source("papers", paper)
        return Problem(source.path, source.line("authors", position), what, mend)

    for name in where.keys() & settled.keys():
        if {paper for paper, _ in where[name]} <= set(catalog.people[settled[name]].printed_in):
            continue
        yield problem(name, f"{name} is written {settled[name]} here", f"write {settled[name]} (catalog/people.yaml)")
    for a, b in sorted(_pairs(catalog, where.keys() - settled.keys())):
        if frozenset((a, b)) in told:
            continue
        keep, other = sorted((a, b), key=lambda name: (name not in catalog.people, -len(where[name]), -len(name)))
        mend = f"write {keep} in every record, or tell the two apart in catalog/people.yaml under `not_same`"
        yield problem(other, f"{other} may be {keep} of {where[keep][0][0]}", mend)
    if len(catalog.papers) == len(catalog.ids("papers")):  # a refused record is missing here
        yield from _unused(catalog, where)


def _unused(catalog: Catalog, where) -> Iterator[Problem]:
    """What people.yaml says is about names that there are."""
    mend = "write the name as the records do or delete it"
    for name, person in catalog.people.items():
        source = catalog.source("people", name)
        if name not in where:
            yield Problem(source.path, source.line(name), f"no paper is by {name}", mend)
        for position, other in enumerate(person.not_same):
            if other.name not in where:
                line = source.line(name, "not_same", position)
                yield Problem(source.path, line, f"no paper is by {other.name}", mend)


def _pairs(catalog: Catalog, names: set[str]) -> set[tuple[str, str]]:
    parted = {name: split(name) for name in names}
    groups: dict[tuple[str, str], set[str]] = defaultdict(set)  # names that could be one person's meet here
    for name, (family, given) in parted.items():
        groups["", family + _letters(given)].add(name)
        if given:
            groups[family, "".join(given[0])].add(name)
            groups[family, given[0][0][0]].add(name)
    found = set()
    for (family, first), group in groups.items():
        if len(group) < 2:
            continue
        if len(first) == 1:  # initials meet every name that begins with them; full names have met already
            short = {name for name in group if all(len(part) == 1 for part in parted[name][1][0])}
            pairs = ((a, b) for a in sorted(short) for b in sorted(group) if a != b)
        else:
            pairs = combinations(sorted(group), 2)
        found |= {tuple(sorted(pair)) for pair in pairs if not family or alike(parted[pair[0]][1], parted[pair[1]][1])}
    return found | _slips(catalog, parted)


def _slips(catalog: Catalog, parted: dict[str, tuple[str, Given]]) -> set[tuple[str, str]]:
    """Pairs that share a co-author, never write together, and have one family name or one first name."""
    keys = {
        name: [("family", family), *[("given", "".join(first)) for first in given[:1]]]
        for name, (family, given) in parted.items()
    }
    common = Counter(key for found in keys.values() for key in found)
    keys = {name: [key for key in found if common[key] > 1] for name, found in keys.items()}  # a key of one name makes no pair
    beside: dict[str, dict[tuple[str, str], set[str]]] = defaultdict(lambda: defaultdict(set))
    together: dict[str, set[str]] = defaultdict(set)
    for paper in catalog.papers.values():
        if len(paper.authors) > 50:
            continue  # a crowd says nothing about who knows whom
        known = [name for name in paper.authors if name in parted]
        for name in known:
            together[name] |= set(known)
            for key in keys[name]:
                for other in known:
                    beside[other][key].add(name)
    pairs = {pair for groups in beside.values() for group in groups.values() for pair in combinations(sorted(group), 2)}
    return {(a, b) for a, b in pairs if b not in together[a] and _near(a, b, (parted[a][1], parted[b][1]))}


# --- works ------------------------------------------------------------------------------------------------------

SAME_PEOPLE, SAME_WORDS = 0.6, 0.6  # of all authors, of all words of both titles


def works(catalog: Catalog) -> Iterator[Problem]:
    """A preprint and its publication are one record: no two papers by the same people have titles of the same words."""
    by_author: dict[tuple[str, int], list[str]] = defaultdict(list)  # first and last authors
    for id, paper in sorted(catalog.papers.items()):
        for end in (0, -1):
            by_author[_person(paper.authors[end]), end].append(id)
    pairs = {pair for group in by_author.values() for pair in combinations(group, 2)}
    people = {id: frozenset(map(_person, catalog.papers[id].authors)) for pair in pairs for id in pair}
    titles = {id: catalog.papers[id].title for id in people}
    for a, b in sorted(pairs):
        if _shared(people[a], people[b]) < SAME_PEOPLE or likeness(titles[a], titles[b]) < SAME_WORDS:
            continue
        if any(word.isdigit() for word in content(titles[a]) ^ content(titles[b])):
            continue  # two parts of one work
        if any(near_same([(a, titles[a]), (b, titles[b])])):
            continue  # found by the rule on titles
        source, path = catalog.source("papers", b), catalog.source("papers", a).path
        mend = "keep one record, of the published version, with the other title in `aliases`"
        yield Problem(source.path, source.line("title"), f"the people and most words of the title are those of {path}", mend)


def content(title: str) -> frozenset[str]:
    """The words of a title that say something, without their endings."""
    return frozenset(stem(word) for word in words(title) if word not in SMALL)


def likeness(a: str, b: str) -> float:
    """The share of words that two titles have in common, with or without a name before a colon."""
    first, second = ({content(title), content(title.partition(":")[2])} for title in (a, b))
    return max((_shared(x, y) for x in first for y in second if min(len(x), len(y)) >= FEWEST_WORDS), default=0.0)


def _person(name: str) -> str:
    family, given = split(name)
    return f"{family} {given[0][0][0]}" if given else family


def _shared(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / max(1, len(a | b))
