"""arXiv: titles and authors as the authors wrote them, the year of the first version. Answers in Atom."""

from __future__ import annotations

import re
from collections.abc import Iterable
from xml.etree import ElementTree

from tools.lookup import found
from tools.lookup.found import Found
from tools.lookup.guard import Unavailable
from tools.lookup.http import Web
from tools.titles import words

NAME = "arXiv"
URL = "https://export.arxiv.org/api/query"
ATOM, ARXIV = "{http://www.w3.org/2005/Atom}", "{http://arxiv.org/schemas/atom}"
BATCH = 100


def by_ids(web: Web, ids: Iterable[str]) -> dict[str, Found]:
    """Id -> what arXiv says; an id that it doesn't know is missing."""
    ids, answers = list(ids), {}
    for start in range(0, len(ids), BATCH):
        some = ids[start : start + BATCH]
        for paper in _read(web, {"id_list": ",".join(some), "max_results": str(len(some))}):
            if paper.arxiv in some:
                answers[paper.arxiv] = paper
    return answers


def by_title(web: Web, title: str) -> list[Found]:
    phrase = " ".join(words(title)[:20])
    return _read(web, {"search_query": f'ti:"{phrase}"', "max_results": "5"}, by_id=False)


def _read(web: Web, params: dict, by_id: bool = True) -> list[Found]:
    feed = web.text(URL, params)
    if feed is None:
        return []
    if "<!DOCTYPE" in feed or "<!ENTITY" in feed:
        raise Unavailable("the answer defines entities and is not read")
    try:
        root = ElementTree.fromstring(feed)
    except (ElementTree.ParseError, ValueError, RecursionError):
        raise Unavailable("the answer is no feed") from None
    return [paper for entry in root.iter(f"{ATOM}entry") if (paper := _paper(entry, by_id))]


def _paper(entry: ElementTree.Element, by_id: bool) -> Found | None:
    id, title = found.arxiv(_text(entry, ATOM + "id")), found.title(_text(entry, ATOM + "title"))
    if not id or not title:
        return None  # an error is an entry too
    summary, comment = (found.text(_text(entry, tag), 10_000) for tag in (ATOM + "summary", ARXIV + "comment"))
    authors = found.names(_text(author, ATOM + "name") for author in entry.findall(f"{ATOM}author"))
    withdrawn = re.search(r"\b(has been|is|was) withdrawn\b|^withdrawn\b", f"{comment} {summary[:300]}", re.I)
    return Found(
        NAME,
        title,
        authors,
        year=found.year(_text(entry, ATOM + "published")),
        venue=NAME,
        arxiv=id,
        doi=found.doi(_text(entry, ARXIV + "doi")),
        code=found.repositories(comment, summary),
        about=summary,
        comment=found.text(_text(entry, ARXIV + "journal_ref")) or comment[:300],
        gone=comment[:200] or "withdrawn" if withdrawn else "",
        by_id=by_id,
    )


def _text(element: ElementTree.Element, tag: str) -> str:
    return element.findtext(tag) or ""
