"""CSV, one row a paper. What a spreadsheet would run as a formula gets an apostrophe before it."""

from __future__ import annotations

import csv
import io
import re

from tools.catalog import Catalog
from tools.exporting import line
from tools.records import Paper

COLUMNS = [
    *("id", "title", "authors", "year", "venue", "venue_name", "where", "kind", "arxiv", "doi", "openreview", "url"),
    *("taxonomy", "methods", "code", "aliases", "summary", "note"),
]
SIGNS = "=+@＝＋－＠-"  # the wide forms too: some spreadsheets read them as the narrow ones
FORMULA = re.compile(rf'(^|;)([\s"]*)(?=[{SIGNS}])')  # also behind a semicolon, which parts cells where the comma is decimal


def csv_table(catalog: Catalog, papers: list[Paper]) -> str:
    """Lists are joined with "; "."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for paper in papers:
        venue = catalog.venues.get(paper.venue)
        values = paper.model_dump() | {
            "id": paper.id,
            "authors": "; ".join(paper.authors),
            "venue_name": venue.name if venue else None,
            "taxonomy": "; ".join(paper.taxonomy),
            "methods": "; ".join(catalog.methods_by_paper.get(paper.id, [])),
            "code": "; ".join(code.url for code in paper.code),
            "aliases": "; ".join(paper.aliases),
        }
        writer.writerow([_cell(values[column]) for column in COLUMNS])
    return text.getvalue()


def _cell(value: object) -> str:
    return "" if value is None else FORMULA.sub(r"\1\2'", line(str(value)))
