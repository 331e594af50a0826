"""Semantic Scholar: knows a paper by many ids and keeps all of its versions as one; its year is often the preprint's."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote

from tools.lookup import found
from tools.lookup.found import Found, dig, listed
from tools.lookup.http import Web

NAME = "Semantic Scholar"
URL = "https://api.semanticscholar.org/graph/v1/paper"
FIELDS = "title,authors,year,venue,publicationVenue,externalIds"
BATCH = 100


def by_id(web: Web, id: str) -> Found | None:
    """The id as ARXIV:2306.01708, DOI:10.1000/xyz or ACL:2024.acl-long.1."""
    return _paper(web.json(f"{URL}/{quote(id, safe=':/')}", {"fields": FIELDS}), True)


def by_ids(web: Web, ids: Iterable[str]) -> dict[str, Found]:
    """Id as above -> what is said about it. The answer has the order of the question, null where nothing is known."""
    ids, answers = list(ids), {}
    for start in range(0, len(ids), BATCH):
        some = ids[start : start + BATCH]
        answer = web.json(f"{URL}/batch", {"fields": FIELDS}, post={"ids": some})
        if isinstance(answer, list) and len(answer) == len(some):
            answers |= {id: paper for id, item in zip(some, answer) if (paper := _paper(item, True))}
    return answers


def by_title(web: Web, title: str) -> list[Found]:
    answer = web.json(f"{URL}/search/match", {"query": title, "fields": FIELDS})
    return [paper for item in listed(dig(answer, "data")) if (paper := _paper(item, False))]


def _paper(item: object, by_id: bool) -> Found | None:
    title = found.title(dig(item, "title"))
    if not title:
        return None
    return Found(
        NAME,
        title,
        found.names(dig(author, "name") for author in listed(dig(item, "authors"))),
        year=found.year(dig(item, "year")),
        venue=found.text(dig(item, "publicationVenue", "name")) or found.text(dig(item, "venue")),
        arxiv=found.arxiv(dig(item, "externalIds", "ArXiv")),
        doi=found.doi(dig(item, "externalIds", "DOI")),
        by_id=by_id,
        merged=True,
    )
