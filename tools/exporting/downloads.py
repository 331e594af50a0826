"""The exports that the site offers, by their place below the docs folder."""

from __future__ import annotations

from collections.abc import Iterator

from tools.catalog import Catalog
from tools.export import chosen, export
from tools.exporting.feed import atom, updated

FOLDER = "catalog/downloads"
NEWEST = 100  # papers in the feed: a reader fetches it again and again
FILES = [  # format, place, what it is for; the feed stands at the root, where the theme looks for a sitemap beside it
    ("bibtex", f"{FOLDER}/papers.bib", "BibTeX of all papers, for LaTeX"),
    ("csl-json", f"{FOLDER}/papers.csl.json", "CSL-JSON of all papers, for Zotero, pandoc and citation processors"),
    ("ris", f"{FOLDER}/papers.ris", "RIS of all papers, for EndNote, Mendeley and Zotero"),
    ("csv", f"{FOLDER}/papers.csv", "one row a paper, for spreadsheets"),
    ("atom", "papers.atom", f"feed of the {NEWEST} newest papers, by the month of their arXiv id or else by year"),
    ("json", f"{FOLDER}/catalog.json", "the whole catalog: every record with every field"),
    ("json-schema", f"{FOLDER}/catalog.schema.json", "JSON Schema of the whole catalog"),
    ("llms", "llms.txt", "map of the site for language models"),
]


def files(catalog: Catalog) -> Iterator[tuple[str, str]]:
    for format, path, _ in FILES:
        if format == "atom":
            newest = sorted(catalog.papers.values(), key=lambda paper: (updated(paper), paper.id))[-NEWEST:]
            yield path, atom(catalog, newest)
        else:
            yield path, export(catalog, format)
    for id in sorted(catalog.reading_lists):
        yield of_list(id), export(catalog, "bibtex", id)


def of_list(id: str) -> str:
    """Where the BibTeX of a reading list is."""
    return f"{FOLDER}/lists/{id}.bib"


def count(catalog: Catalog, id: str) -> int:
    return len(chosen(catalog, id))
