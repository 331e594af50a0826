"""An Atom feed of papers, newest first.

No record has the day on which a paper appeared, so none is claimed: `updated` is the first day of the month of the arXiv
id, or of the year where there is none, and the feed's subtitle says so.
"""

from __future__ import annotations

import re
import uuid
from xml.etree import ElementTree

from tools.catalog import Catalog
from tools.exporting import line, links
from tools.records import Paper

ATOM = "http://www.w3.org/2005/Atom"
ARXIV = re.compile(r"(?:[a-z-]+(?:\.[A-Z]{2})?/)?(\d\d)(0[1-9]|1[0-2])\d{3}|(\d\d)(0[1-9]|1[0-2])\.\d{4,5}")
DATES = (
    "Papers by the month of their arXiv id, or by their year where they have none; "
    "the first day stands for the whole month or year."
)


def atom(catalog: Catalog, papers: list[Paper]) -> str:
    newest = sorted(papers, key=lambda paper: (updated(paper), paper.id), reverse=True)
    feed = ElementTree.Element("feed", xmlns=ATOM)
    _add(feed, "title", "Model Fusion Atlas: papers")
    _add(feed, "subtitle", DATES)
    _add(feed, "id", _urn("papers"))
    _add(feed, "updated", max(map(updated, papers), default="1970-01-01T00:00:00Z"))
    _add(feed, "rights", "Facts and summaries under CC BY 4.0")
    for paper in newest:
        entry = ElementTree.SubElement(feed, "entry")
        _add(entry, "title", paper.title, type="text")
        _add(entry, "id", _urn(f"papers:{paper.id}"))
        _add(entry, "updated", updated(paper))
        for author in paper.authors:
            _add(ElementTree.SubElement(entry, "author"), "name", author)
        for number, link in enumerate(links(paper)):
            ElementTree.SubElement(entry, "link", rel="related" if number else "alternate", href=link)
        for node in paper.taxonomy:
            ElementTree.SubElement(entry, "category", term=node)
        _add(entry, "content", paper.summary, type="text")
    ElementTree.indent(feed, " ")
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(feed, "unicode") + "\n"


def updated(paper: Paper) -> str:
    """As RFC 3339 wants it.

    Example:
        >>> from types import SimpleNamespace
        >>> updated(SimpleNamespace(arxiv="2306.01708", year=2024)), updated(SimpleNamespace(arxiv=None, year=2024))
        ('2023-06-01T00:00:00Z', '2024-01-01T00:00:00Z')
    """
    match = ARXIV.fullmatch(paper.arxiv or "")
    if match is None:
        return f"{paper.year}-01-01T00:00:00Z"
    year, month = int(match[1] or match[3]), match[2] or match[4]
    return f"{1900 + year if year > 90 else 2000 + year}-{month}-01T00:00:00Z"  # arXiv began in 1991


def _urn(name: str) -> str:
    """An id that never changes, wherever the feed is kept."""
    return uuid.uuid5(uuid.NAMESPACE_URL, f"model-fusion-atlas:{name}").urn


def _add(parent: ElementTree.Element, tag: str, text: str, **attributes: str) -> None:
    ElementTree.SubElement(parent, tag, attributes).text = line(text)
