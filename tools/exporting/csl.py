"""CSL-JSON, the data that citation processors read (citeproc, pandoc, Zotero)."""

from __future__ import annotations

import json

from tools.bibtex import PLACE
from tools.catalog import Catalog
from tools.exporting import line, links
from tools.exporting.names import parts
from tools.records import Paper, Venue

TYPES = {"conference": "paper-conference", "workshop": "paper-conference", "journal": "article-journal"}  # article elsewhere


def csl_json(catalog: Catalog, papers: list[Paper]) -> str:
    items = [csl_item(paper, catalog.venues.get(paper.venue)) for paper in papers]
    return json.dumps(items, indent=1, ensure_ascii=False) + "\n"


def csl_item(paper: Paper, venue: Venue | None) -> dict[str, object]:
    kind = TYPES.get(venue.kind, "article") if venue else "article"
    published = kind != "article"
    item = {
        "id": paper.id,
        "type": kind,
        "title": line(paper.title),
        "author": [parts(line(author)) for author in paper.authors],
        "issued": {"date-parts": [[paper.year]]},
        "container-title": line(venue.name) if published else None,
        "container-title-short": line(venue.short) if published else None,
        "publisher": line(venue.name) if venue and not published else None,
        **place(paper.where),
        "archive": "arXiv" if paper.arxiv else None,
        "archive_location": f"arXiv:{line(paper.arxiv)}" if paper.arxiv else None,
        "DOI": line(paper.doi) if paper.doi else None,
        "URL": next(iter(links(paper)), None),
    }
    return {key: value for key, value in item.items() if value}


def place(where: str | None) -> dict[str, str]:
    """Volume, issue and pages in CSL's names; anything else is a note."""
    match = PLACE.fullmatch(where) if where else None
    if match is None:
        return {"note": line(where)} if where else {}
    names = {"volume": match["volume"], "issue": match["number"], "page": match["pages"]}
    return {key: value for key, value in names.items() if value}
