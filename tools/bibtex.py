"""BibTeX of a paper: computed from its record, never stored.

Text stays in UTF-8. Every character that LaTeX or BibTeX acts on is written as a command with balanced braces, so that no
title can close its field and open another. A second pair of braces keeps the capitals of titles and names of venues.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import bibtexparser
from bibtexparser.middlewares import AddEnclosingMiddleware
from bibtexparser.model import Entry, Field

from tools.records import Paper, Venue

ACTIVE = {character: f"\\{character}" for character in "&%$#_"} | {
    "\\": r"\textbackslash{}",
    "{": r"{\textbraceleft}",  # \{ would unbalance the braces that BibTeX counts
    "}": r"{\textbraceright}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}
TYPES = {"conference": "inproceedings", "workshop": "inproceedings", "journal": "article"}  # misc elsewhere
PLACE = re.compile(  # 26(307):1-38, a volume alone, or pages 1-38
    r"((?P<volume>\d+)(\((?P<number>[\w/-]+)\))?(:(?=.)|$)|(pages )?(?=.))(?P<pages>[A-Za-z]?\d+(-[A-Za-z]?\d+)?)?"
)

_FORMAT = bibtexparser.BibtexFormat()
_FORMAT.indent = "  "
_FORMAT.block_separator = "\n"
_FORMAT.trailing_comma = True


def bibtex_entry(paper: Paper, venue: Venue | None) -> str:
    """The entry of one paper; `venue` is the record that `paper.venue` names."""
    return bibliography([(paper, venue)])


def bibliography(papers: Iterable[tuple[Paper, Venue | None]]) -> str:
    """The entries of many papers, in the order given."""
    library = bibtexparser.Library([entry(paper, venue) for paper, venue in papers])
    enclose = AddEnclosingMiddleware(
        reuse_previous_enclosing=False, enclose_integers=True, default_enclosing="{", allow_inplace_modification=True
    )
    return bibtexparser.write_string(library, unparse_stack=[enclose], bibtex_format=_FORMAT)


def entry(paper: Paper, venue: Venue | None) -> Entry:
    """The fields as BibTeX sees them, without the outer braces."""
    kind = TYPES.get(venue.kind, "misc") if venue else "misc"
    fields = {
        "author": " and ".join(_author(author) for author in paper.authors),
        "title": _protected(paper.title),
        "year": str(paper.year),
    }
    if kind == "inproceedings":
        fields["booktitle"] = _protected(venue.name)
    elif kind == "article":
        fields["journal"] = _protected(venue.name)
    fields |= _place(paper.where)
    if paper.doi:
        fields["doi"] = paper.doi
    if paper.arxiv:
        fields |= {"eprint": paper.arxiv, "archiveprefix": "arXiv"}
    if link := _link(paper):
        fields["url"] = link
    return Entry(entry_type=kind, key=paper.id, fields=[Field(key=key, value=value) for key, value in fields.items()])


def escaped(text: str) -> str:
    return "".join(ACTIVE.get(character, character) for character in text)


def _protected(text: str) -> str:
    return "{" + escaped(text) + "}"


def _author(name: str) -> str:
    """A name with a comma or the word "and" is kept whole; BibTeX would cut it there."""
    special = "," in name or {"and", "others"} & set(name.lower().split())
    return _protected(name) if special else escaped(name)


def _place(where: str | None) -> dict[str, str]:
    if where is None:
        return {}
    match = PLACE.fullmatch(where)
    if match is None:
        return {"note": escaped(where)}
    parts = {key: value for key, value in match.groupdict().items() if value}
    return parts | ({"pages": parts["pages"].replace("-", "--")} if "pages" in parts else {})


def _link(paper: Paper) -> str | None:
    if paper.url:
        return paper.url
    if paper.openreview:
        return f"https://openreview.net/forum?id={paper.openreview}"
    return f"https://arxiv.org/abs/{paper.arxiv}" if paper.arxiv and not paper.doi else None
