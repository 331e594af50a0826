"""OpenAlex: an open catalog that gathers the versions of a work. A search costs its free quota, a DOI does not."""

from __future__ import annotations

from tools.lookup import found
from tools.lookup.found import Found, dig, listed
from tools.lookup.http import Web

NAME = "OpenAlex"
URL = "https://api.openalex.org/works"


def by_doi(web: Web, doi: str) -> Found | None:
    return _paper(web.json(f"{URL}/doi:{doi}"), True)


def by_arxiv(web: Web, id: str) -> Found | None:
    return by_doi(web, f"10.48550/arxiv.{id}")


def by_title(web: Web, title: str) -> list[Found]:
    answer = web.json(URL, {"search": title, "per-page": "5"})
    return [paper for item in listed(dig(answer, "results")) if (paper := _paper(item, False))]


def _paper(item: object, by_id: bool) -> Found | None:
    title = found.title(dig(item, "title")) or found.title(dig(item, "display_name"))
    if not title:
        return None
    places = [dig(item, "primary_location"), *listed(dig(item, "locations"))]
    published = next((p for p in places if dig(p, "source", "type") in ("journal", "conference", "book series")), None)
    links = [dig(place, key) for place in places for key in ("landing_page_url", "pdf_url")]
    authors = listed(dig(item, "authorships"))
    return Found(
        NAME,
        title,
        found.names(found.text(dig(a, "author", "display_name")) or dig(a, "raw_author_name") for a in authors),
        year=found.year(dig(item, "publication_year")),
        venue=found.text(dig(published or places[0], "source", "display_name")),
        doi=found.doi(dig(item, "doi")),
        arxiv=next((id for link in [dig(item, "doi"), *links] if (id := found.arxiv(link))), None),
        openreview=next((id for link in links if (id := found.openreview(link))), None),
        gone="marked as retracted at OpenAlex" if dig(item, "is_retracted") is True else "",
        by_id=by_id,
        merged=True,
    )
