"""The data of the two explorers and of the search box: compact JSON that is fetched only where it is used.

An explorer's first file has the filters with their choices, and one row a record: id, title, the line below it, and for
every filter the number of its choice (a list where a record may have several). Its second file, fetched by the first word
that is typed, has the further words of every row: authors, other names, ids. `explorer.js` reads both; the first rows
are also written into the page, so that it works without JavaScript.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from html import unescape
from typing import get_args

from tools.catalog import Catalog
from tools.escape import anchor
from tools.records import Method, Paper, Requirements

FIRST = 50  # rows that are written into the page
Table = tuple[dict, list[str]]  # the two files
YES_NO = {True: "yes", False: "no"}


def papers(catalog: Catalog, implemented: Collection[str], measured: Collection[str]) -> Table:
    """All papers, newest first. `implemented` and `measured` are ids of methods."""
    order = sorted(catalog.papers, key=lambda id: (-catalog.papers[id].year, catalog.papers[id].title.casefold(), id))
    venues = {paper.venue for paper in catalog.papers.values()}
    named = {id: catalog.venues[id].short if id in catalog.venues else id for id in venues}
    facets = [
        _topics(catalog, catalog.papers_by_taxonomy),
        _facet("venue", "Venue", [(id, name, name) for id, name in sorted(named.items(), key=lambda item: item[1].casefold())]),
        _facet("year", "Year", [(str(y), str(y), str(y)) for y in sorted({p.year for p in catalog.papers.values()})], "range"),
        _facet("code", "Code", [("yes", "linked", "code"), ("no", "none known", "")]),
        _facet("implementation", "Implemented here", [("yes", "yes", "implemented here"), ("no", "no", "")]),
        _facet("measured", "Measured here", [("yes", "yes", ""), ("no", "no", "")]),
    ]

    def choices(id: str, paper: Paper) -> list[object]:
        here = [any(method in some for method in catalog.methods_by_paper.get(id, [])) for some in (implemented, measured)]
        return [list(paper.taxonomy), paper.venue, str(paper.year), YES_NO[bool(paper.code)], *(YES_NO[one] for one in here)]

    rows = []
    for id in order:
        paper = catalog.papers[id]
        more = " ".join(filter(None, [*paper.authors, *paper.aliases, paper.arxiv]))
        rows.append(([id, paper.title, short_authors(paper)], choices(id, paper), more))
    return _table(facets, rows)


def methods(catalog: Catalog, implemented: Collection[str], chapters: Iterable[Mapping]) -> Table:
    """All methods, chapter by chapter."""
    chapters = list(chapters)
    need = [("yes", "needed"), ("no", "not needed")]
    facets = [
        _facet("chapter", "Chapter", [(chapter["id"], chapter["name"], "") for chapter in chapters]),
        _topics(catalog, catalog.methods_by_taxonomy),
        _facet("base", "Base model", _tagged(need, yes="base model")),
        _facet("data", "Data", [("none", "none", ""), ("unlabeled", "unlabeled", "unlabeled data"), ("labeled", "labeled", "labeled data")]),
        _facet("gradients", "Gradients", _tagged(need, yes="gradients")),
        _facet("training", "Training", _tagged(need, yes="training")),
        _facet("same_init", "Same initialisation", _tagged(need, yes="same initialisation")),
        _facet("same_architecture", "Same architecture", _tagged(need, no="any architecture")),
        _facet("output", "What comes out", [(v, v, f"gives: {v}") for v in get_args(Requirements.model_fields["output"].annotation)]),
        _facet("inference", "Held and run at inference", [(v, v, "") for v in get_args(Requirements.model_fields["inference"].annotation)]),
        _facet("implementation", "Implemented here", [("yes", "yes", ""), ("no", "no", "implementation to come")]),
    ]

    def choices(id: str, method: Method, chapter: str) -> list[object]:
        r = method.requirements
        needs = [getattr(r, name) for name in ("gradients", "training", "same_init", "same_architecture")]
        return [
            *(chapter, list(method.taxonomy), YES_NO[r.base], r.data, *(YES_NO[value] for value in needs)),
            *(r.output, r.inference, YES_NO[id in implemented]),
        ]

    rows = []
    for chapter in chapters:
        for id in chapter["methods"]:
            method = catalog.methods[id]
            more = " ".join([*method.aliases, id, *_origin(catalog, method), _people(catalog, method)])
            rows.append(([id, method.name, method.summary], choices(id, method, chapter["id"]), more))
    return _table(facets, rows)


def tags(data: dict, row: list) -> list[str]:
    """What a row shows beside its title: the tags of its choices."""
    chosen = [(facet, number) for facet, value in zip(data["facets"], row[3:]) for number in _numbers(value)]
    return [tag for facet, number in chosen if (tag := facet["values"][number][2])]


def search_index(catalog: Catalog, fixed: Iterable[tuple[str, str]]) -> dict:
    """What the search box finds, methods first. A document: number of its kind, place, title, other names, people and ids, text.

    `fixed` are the pages that belong to no record: their path and title.
    """
    kinds = ["Method", "Paper", "Topic", "Reading list", "Venue", "Code", "Resource", "Page"]
    docs = []
    for id, method in sorted(catalog.methods.items()):
        text = " ".join([method.summary, *_origin(catalog, method)])
        docs.append([0, f"catalog/methods/{id}/", method.name, [*method.aliases, id], _people(catalog, method), text])
    for id, paper in sorted(catalog.papers.items()):
        venue = catalog.venues.get(paper.venue)
        people = ", ".join([*paper.authors, *filter(None, [paper.arxiv, paper.doi])])
        text = f"{venue.short if venue else paper.venue} {paper.year}. {paper.summary}"
        docs.append([1, f"catalog/papers/{id}/", paper.title, [*paper.aliases, id], people, text])
    docs += [[2, f"catalog/taxonomy/{id}/", node.name, [id], "", node.summary] for id, node in catalog.taxonomy.items()]
    docs += [[3, f"catalog/reading_lists/{id}/", one.title, [], one.source, one.summary] for id, one in sorted(catalog.reading_lists.items())]
    docs += [[4, f"catalog/venues/{id}/", venue.short, [venue.name], "", venue.name] for id, venue in sorted(catalog.venues.items())]
    docs += [[5, f"catalog/codebases/{id}/", code.name, [id], ", ".join(code.authors), code.summary] for id, code in sorted(catalog.codebases.items())]
    for id, one in sorted(catalog.resources.items()):
        place = f"catalog/resources/{one.kind.replace(' ', '-')}/#{anchor(id)}"
        docs.append([6, place, one.name, [], ", ".join(one.authors), one.summary])
    for path, title in sorted(fixed):
        docs.append([7, re.sub(r"(index)?\.md$", lambda end: "" if end[1] else "/", path), unescape(title), [], "", ""])
    return {"kinds": kinds, "docs": docs}


def dump(data: dict) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))


def _facet(id: str, name: str, values: Iterable[tuple[str, ...]], kind: str = "choice") -> dict:
    """A value is its id, its label, and the tag that a row with it shows; kind says how values are chosen."""
    return {"id": id, "name": name, "kind": kind, "values": [list(value) for value in values]}


def _topics(catalog: Catalog, members: Mapping[str, list[str]]) -> dict:
    """Every node that has something in it or below it, parents before children: ids are paths, which says what is below what."""
    nodes = sorted((node for node in catalog.taxonomy if members.get(node)), key=lambda node: node.split("/"))
    return _facet("topic", "Topic", [(node, catalog.taxonomy[node].name, "") for node in nodes], "tree")


def _tagged(choices: Iterable[tuple[str, str]], **tags: str) -> list[tuple[str, str, str]]:
    return [(id, label, tags.get(id, "")) for id, label in choices]


def _table(facets: list[dict], rows: Sequence[tuple[list[str], list[object], str]]) -> Table:
    """The filters, every row with the numbers of its choices in place of their ids, and the further words of every row."""
    places = [{value[0]: number for number, value in enumerate(facet["values"])} for facet in facets]
    made = []
    for shown, choices, _ in rows:
        numbers = [
            [place[one] for one in choice if one in place] if isinstance(choice, list) else place[choice]
            for place, choice in zip(places, choices)
        ]
        made.append([*shown, *numbers])
    return {"facets": facets, "rows": made}, [more for *_, more in rows]


def short_authors(paper: Paper) -> str:
    first, *others = paper.authors
    if not others:
        return first
    return f"{first} and {others[0]}" if len(others) == 1 else f"{first} et al."


def _numbers(value: int | list[int]) -> list[int]:
    return value if isinstance(value, list) else [value]


def _origin(catalog: Catalog, method: Method) -> list[str]:
    """Title, other titles and arXiv id of the paper that introduced a method: people look for it by these too."""
    paper = catalog.papers.get(method.introduced_by or "")
    return [*filter(None, [paper.title, *paper.aliases, paper.arxiv])] if paper else []


def _people(catalog: Catalog, method: Method) -> str:
    paper = catalog.papers.get(method.introduced_by or "")
    return ", ".join(paper.authors) if paper else ""
