"""One record from many answers. The published version is preferred; where sources disagree, neither is written."""

from __future__ import annotations

from collections.abc import Callable

from tools.catalog import BLANK, Catalog
from tools.importing.items import posted, publication, shown
from tools.importing.match import Index
from tools.lookup import anthology, arxiv, crossref, dblp, openalex, openreview, semantic_scholar
from tools.lookup.ask import same_title
from tools.lookup.found import Found
from tools.titles import words

BEST = (openreview, anthology, arxiv, dblp, crossref, openalex, semantic_scholar)  # in spelling titles and names, best first
PARTS = set("findings industry tiny blogposts demonstrations student doctoral companion".split())  # of a conference, not it
SERIES = ("machine learning research", "lecture notes", "openreview", "pmlr")  # say nothing about the venue
Claim = tuple[str, object]  # source, value


class Agreement:
    """`record` is ready to be written, `said` is what its reader has to know."""

    def __init__(self, papers: list[Found], catalog: Catalog, prefer: str | None = None):
        order = {source.NAME: place for place, source in enumerate(BEST)}
        self.papers = sorted(papers, key=lambda paper: order.get(paper.source, -1))
        self.prefer, self.catalog, self.names = prefer, catalog, Index(catalog).venues
        self.said: list[str] = []
        self.undecided: list[str] = []  # fields that are left as TODO because sources disagree
        self.record: dict[str, object] = {}
        self.venue()
        self.year()
        self.title()
        self.authors()
        for key in ("arxiv", "doi", "openreview"):
            value = self.settle(key, [(p.source, getattr(p, key)) for p in self.papers if getattr(p, key)])
            if value is not None:
                self.record[key] = value
        self.where()
        self.rest()

    @property
    def leading(self) -> list[Found]:
        """The answers about the version that the record is of."""
        now = [paper for paper in self.papers if self.label(paper) == self.version]
        return now or [paper for paper in self.papers if self.label(paper) not in ("", "arxiv")] or self.papers

    def settle(self, field: str, claims: list[Claim], same: Callable = lambda a, b: a == b) -> object:
        """The value on which all agree, or a blank that names every one; None without claims."""
        camps: list[tuple[object, list[str]]] = []  # value -> the sources that have it
        for source, value in claims:
            camp = next((sources for other, sources in camps if same(value, other)), None)
            if camp is None:
                camps.append((value, camp := []))
            camp.append(source)
        if len(camps) < 2:
            return camps[0][0] if camps else None
        if chosen := [value for source, value in claims if self.preferred(source)]:
            self.said.append(f"{field}: {_said(camps)}; taken from {self.prefer}")
            return chosen[0]
        sources = " or ".join(f"--prefer {sources[0]!r}" for _, sources in camps[:2])
        self.said.append(f"{field}: {_said(camps)}; left as {BLANK}: decide, or run again with {sources}")
        self.undecided.append(field)
        return f"{BLANK}: {_said(camps)}"[:1000]

    def preferred(self, source: str) -> bool:
        return self.prefer is not None and source.casefold() == self.prefer.casefold()

    # --- the fields

    def label(self, paper: Found) -> str:
        """Our id of the venue that an answer names, or its own words; nothing where it names none."""
        name = paper.venue
        if not name or any(series in name.casefold() for series in SERIES) and not publication(name, self.names).venue:
            return ""
        return venue_of(name, self.names, self.catalog) or shown(name)

    def venue(self) -> None:
        claims = [(paper.source, label) for paper in self.papers if (label := self.label(paper)) and label != "arxiv"]
        exact = {label for _, label in claims}
        less = {label for label in exact for other in exact if other.startswith(f"{label}-")}
        for source, label in claims:
            if label in less:
                self.said.append(f"venue: {source} says {label}, others name the part of it")
        value = self.settle("venue", [claim for claim in claims if claim[1] not in less])
        if value is None:
            value = "arxiv" if any(paper.arxiv for paper in self.papers) else f"{BLANK}: an id of catalog/venues.yaml"
        self.version = value
        if value not in self.catalog.venues and not value.startswith(BLANK):
            self.said.append(f"venue: {value} is not in catalog/venues.yaml; add it there, or write the id that is meant")
            value = f"{BLANK}: an id of catalog/venues.yaml; said to be {value}"
        self.record["venue"] = value
        if value == "arxiv" and (comment := next((p.comment for p in self.papers if p.comment), "")):
            self.said.append(f"venue: the authors' remark on arXiv is {shown(comment)}")

    def year(self) -> None:
        claims = [(paper.source, paper.year) for paper in self.leading if paper.year]
        number = next((paper.arxiv for paper in self.papers if paper.arxiv), None)
        blank = f"{BLANK}: of the venue; of the first version for a preprint"
        if self.version == "arxiv":
            claims = [claim for claim in claims if claim[0] == arxiv.NAME] or claims
        elif number:
            merged = {paper.source for paper in self.papers if paper.merged}
            doubtful = [claim for claim in claims if claim[0] in merged and claim[1] == posted(number)[0]]
            claims = [claim for claim in claims if claim not in doubtful]
            blank = f"{BLANK}: of the venue; {_both(doubtful)}, which may be the preprint's" if doubtful else blank
        self.record["year"] = self.settle("year", claims) or blank

    def title(self) -> None:
        own = [paper for paper in self.leading if not paper.merged] or self.leading
        fold = {paper.title: "".join(words(paper.title)) for paper in self.papers}
        groups = {fold[paper.title] for paper in own}
        others = [paper for paper in self.papers if fold[paper.title] not in groups]
        if len(groups) == 1 and all(same_title(paper.title, own[0].title) for paper in others):
            spelt = next(paper for paper in self.papers if fold[paper.title] in groups)
            self.record["title"] = spelt.title
            aliases = list({fold[paper.title]: paper.title for paper in reversed(others)}.values())
            if aliases:
                self.record["aliases"] = aliases
                claims = [(paper.source, shown(paper.title)) for paper in [own[0], *others]]
                self.said.append(f"title: {_both(claims)}; the others are aliases")
                return
        claims = [(paper.source, paper.title) for paper in self.papers]
        self.record["title"] = self.settle("title", claims, lambda a, b: fold[a] == fold[b])

    def authors(self) -> None:
        known = [paper for paper in self.papers if paper.authors]
        known.sort(key=lambda paper: sum(_initials(name) for name in paper.authors))
        value = self.settle("authors", [(paper.source, paper.authors) for paper in known], same_people)
        blank = [f"{BLANK}: Given Family, one line an author, in the paper's order"]
        self.record["authors"] = list(value) if isinstance(value, tuple) else [value] if value else blank

    def where(self) -> None:
        claims = [(paper.source, paper.where) for paper in self.leading if paper.where]
        longest = max((where for _, where in claims), key=len, default="")
        if longest and all(where in longest for _, where in claims):
            self.record["where"] = longest
        elif longest:
            self.said.append(f"where: {_both(claims)}; left out")

    def rest(self) -> None:
        if not {"arxiv", "doi", "openreview"} & self.record.keys():
            url = next((paper.url for paper in self.papers if paper.url), None)
            self.record["url"] = url or f"{BLANK}: https://..., or arxiv, doi, openreview instead"
        if code := list(dict.fromkeys(link for paper in self.papers for link in paper.code)):
            blank = f"{BLANK}: true when the paper's authors published it"
            self.record["code"] = [{"url": url, "official": blank} for url in code]
        if gone := [f"{paper.source}: {paper.gone}" for paper in self.papers if paper.gone]:
            self.said.append(f"retracted or withdrawn: {'; '.join(gone)}")
            self.record["note"] = f"{BLANK}: {'; '.join(gone)}"


def venue_of(text: str, names: dict[str, list[str]], catalog: Catalog) -> str | None:
    """Our id of a venue. A workshop, a findings volume or a side track is not the conference that it belongs to."""
    found = publication(text, names)
    if found.venue is None:
        return None
    venue = catalog.venues[found.venue]
    part = PARTS & set(words(text)) - set(words(" ".join([venue.name, venue.short, *venue.aliases])))
    workshop = (found.workshop or "@" in text) and venue.kind != "workshop"  # "SPIGM @ ICLR 2024"
    return None if part or workshop else found.venue


def same_people(a: tuple[str, ...], b: tuple[str, ...]) -> bool:
    """The same persons in the same order, however their given names are written."""
    return len(a) == len(b) and all(same_person(*pair) for pair in zip(a, b))


def same_person(a: str, b: str) -> bool:
    now, other = words(a), words(b)
    if not now or not other or sorted(now) == sorted(other) or "".join(now) == "".join(other):
        return bool(now and other) or a == b
    if now[-1] != other[-1]:
        return False
    return all(x.startswith(y) or y.startswith(x) for x, y in zip(now[:1], other[:1]))


def _initials(name: str) -> bool:
    return any(len(word) == 1 for word in words(name)[:1])


def _both(claims: list[Claim]) -> str:
    return _said([(value, [source]) for source, value in claims])


def _said(camps: list[tuple[object, list[str]]]) -> str:
    """OpenReview, arXiv say 2025; DBLP says 2026"""
    parts = []
    for value, sources in camps:
        sources = list(dict.fromkeys(sources))
        value = ", ".join(value) if isinstance(value, tuple) else value
        parts.append(f"{', '.join(sources)} {'says' if len(sources) == 1 else 'say'} {value}")
    return "; ".join(parts)
