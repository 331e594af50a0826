"""RIS, the tagged lines that reference managers import: TY first, ER last, one line a fact."""

from __future__ import annotations

from collections.abc import Iterator

from tools.catalog import Catalog
from tools.exporting import line, links
from tools.exporting.csl import place
from tools.exporting.names import inverted
from tools.records import Paper, Venue

TYPES = {"conference": "CPAPER", "workshop": "CPAPER", "journal": "JOUR"}  # UNPB, unpublished, elsewhere


def ris(catalog: Catalog, papers: list[Paper]) -> str:
    records = []
    for paper in papers:
        facts = _facts(paper, catalog.venues.get(paper.venue))
        records.append("".join(f"{tag}  - {line(value)}\n" for tag, value in facts if value) + "ER  - \n")
    return "\n".join(records)


def _facts(paper: Paper, venue: Venue | None) -> Iterator[tuple[str, str | None]]:
    where = place(paper.where)
    first, _, last = where.get("page", "").partition("-")
    yield "TY", TYPES.get(venue.kind, "UNPB") if venue else "UNPB"
    yield "ID", paper.id
    yield from (("AU", inverted(line(author))) for author in paper.authors)
    yield "TI", paper.title
    yield "T2", venue.name if venue else None
    yield "J2", venue.short if venue else None
    yield "PY", str(paper.year)
    yield "VL", where.get("volume")
    yield "IS", where.get("issue")
    yield "SP", first
    yield "EP", last
    yield "N1", where.get("note")
    yield "AN", f"arXiv:{paper.arxiv}" if paper.arxiv else None
    yield "DO", paper.doi
    yield from (("UR", link) for link in links(paper))
