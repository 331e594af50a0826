"""The ACL Anthology: the proceedings of computational linguistics, in BibTeX."""

from __future__ import annotations

import re
from dataclasses import replace

from tools.importing import bibtex
from tools.lookup import found
from tools.lookup.found import Found
from tools.lookup.guard import Unavailable
from tools.lookup.http import Web

NAME = "ACL Anthology"
URL = "https://aclanthology.org"
LARGEST = 50_000  # characters of an entry
ID = r"\d{4}\.[a-z0-9_]+-[a-z0-9_]+\.\d{1,4}|[A-Z]\d{2}-\d{4}"


def by_id(web: Web, id: str) -> Found | None:
    answer = web.text(f"{URL}/{id}.bib")
    if answer is None:
        return None
    if len(answer) > LARGEST:
        raise Unavailable(f"the ACL Anthology answers with {len(answer)} characters for one entry")
    papers = from_bibtex(answer, NAME)
    if len(papers) != 1:
        raise Unavailable(f"the ACL Anthology answers with {len(papers)} entries for {id}")
    return replace(papers[0], url=f"{URL}/{id}", by_id=True)


def from_bibtex(text: str, source: str) -> list[Found]:
    """The papers of a BibTeX text, as what `source` says about them."""
    return [
        Found(
            source,
            found.title(item.title),
            found.names(item.authors),
            year=found.year((re.findall(r"(?:19|20)\d\d$", item.pub) or [None])[0]),
            venue=re.sub(r"\s*(19|20)\d\d$", "", item.pub),
            arxiv=item.arxiv,
            doi=item.doi.lower() if item.doi else None,
            openreview=item.openreview,
            url=item.url,
            code=found.repositories(*(link.url for link in item.code)),
        )
        for item in bibtex.read(text).items
        if found.title(item.title)
    ]
