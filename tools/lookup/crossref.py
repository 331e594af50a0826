"""Crossref: what publishers registered under a DOI, with its retractions."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote

from tools.lookup import found
from tools.lookup.found import Found, dig, listed
from tools.lookup.http import Web

NAME = "Crossref"
URL = "https://api.crossref.org/works"
BATCH = 20  # DOIs in one question; an answer holds all references of each
RETRACTIONS = {"retraction", "withdrawal", "removal", "partial_retraction"}


def by_doi(web: Web, doi: str) -> Found | None:
    return _paper(dig(web.json(f"{URL}/{quote(doi, safe='')}"), "message"), True)


def by_dois(web: Web, dois: Iterable[str]) -> dict[str, Found]:
    dois, answers = [doi.lower() for doi in dois], {}
    for start in range(0, len(dois), BATCH):
        some = dois[start : start + BATCH]
        answer = web.json(URL, {"filter": ",".join(f"doi:{doi}" for doi in some), "rows": str(len(some))})
        for item in listed(dig(answer, "message", "items")):
            if (paper := _paper(item, True)) and paper.doi in some:
                answers[paper.doi] = paper
    return answers


def by_title(web: Web, title: str) -> list[Found]:
    answer = web.json(URL, {"query.bibliographic": title, "rows": "5"})
    return [paper for item in listed(dig(answer, "message", "items")) if (paper := _paper(item, False))]


def _paper(item: object, by_id: bool) -> Found | None:
    name, subtitle = found.title(dig(item, "title", 0)), found.title(dig(item, "subtitle", 0))
    if not name:
        return None
    containers = [found.text(value) for value in listed(dig(item, "container-title"))]
    preprint = dig(item, "type") == "posted-content"
    updates = [found.text(dig(update, "type")) for update in listed(dig(item, "updated-by"))]
    retracted = [update for update in updates if update in RETRACTIONS]
    date = next((d for key in ("published-print", "issued") if (d := dig(item, key, "date-parts", 0, 0)) is not None), None)
    return Found(
        NAME,
        f"{name}: {subtitle}" if subtitle and subtitle.casefold() not in name.casefold() else name,
        found.names(_name(author) for author in listed(dig(item, "author"))),
        year=found.year(date),
        venue="arXiv" if preprint else "; ".join([*containers, found.text(dig(item, "event", "name"))]).strip("; "),
        where=found.place(dig(item, "volume"), dig(item, "issue"), dig(item, "page")),
        doi=found.doi(dig(item, "DOI")),
        arxiv=next((id for link in listed(dig(item, "relation", "has-preprint")) if (id := found.arxiv(dig(link, "id")))), None),
        gone=f"{retracted[0]} registered at Crossref" if retracted else "",
        by_id=by_id,
    )


def _name(author: object) -> str:
    parts = [found.text(dig(author, key), 100) for key in ("given", "family", "suffix")]
    return " ".join(part for part in parts if part) or found.text(dig(author, "name"), 100)
