"""DBLP: the computer science bibliography, kept by hand; a preprint and its published version are two entries."""

from __future__ import annotations

from tools.lookup import found
from tools.lookup.found import Found, dig, listed
from tools.lookup.http import Web
from tools.titles import words

NAME = "DBLP"
URL = "https://dblp.org/search/publ/api"


def by_title(web: Web, title: str) -> list[Found]:
    answer = web.json(URL, {"q": " ".join(words(title)), "format": "json", "h": "10", "c": "0"})
    hits = listed(dig(answer, "result", "hits", "hit"))
    return [paper for hit in hits if (paper := _paper(dig(hit, "info")))]


def _paper(info: object) -> Found | None:
    title = found.title(dig(info, "title"))
    if not title:
        return None
    links = [found.text(link) for link in listed(dig(info, "ee"))]
    authors = listed(dig(info, "authors", "author"))
    venue = "; ".join(found.text(name) for name in listed(dig(info, "venue")))
    return Found(
        NAME,
        title,
        found.names(author if isinstance(author, str) else dig(author, "text") for author in authors),
        year=found.year(dig(info, "year")),
        venue="arXiv" if venue == "CoRR" else venue,
        where="" if venue == "CoRR" else found.place(dig(info, "volume"), dig(info, "number"), dig(info, "pages")),
        doi=found.doi(dig(info, "doi")),
        arxiv=next((id for link in [dig(info, "doi"), *links] if (id := found.arxiv(link))), None),
        openreview=next((id for link in links if (id := found.openreview(link))), None),
    )
