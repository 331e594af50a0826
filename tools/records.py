"""The shape of every record in `catalog/`: pydantic types, closed vocabularies, no unknown keys.

A record's id and its kind are its path; nothing that can be computed is stored. `catalog/schema/` holds the JSON
Schema that `python -m tools fmt` writes from these types, so that an editor completes and underlines.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, StringConstraints

# --- plain text and links ---------------------------------------------------------------------------------------

_FORBIDDEN = {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}  # control, bidi, zero-width, private use, line separators


def _printable(text: str) -> str:
    """Refuse characters that a reader cannot see: they hide text or reorder it."""
    if "\n" in text:
        raise ValueError("a line break; write it on one line")
    for position, character in enumerate("" if text.isprintable() else text):
        if unicodedata.category(character) in _FORBIDDEN:
            raise ValueError(f"invisible character U+{ord(character):04X} at position {position}; delete it")
    if text != text.strip():
        raise ValueError("space at the start or the end; delete it")
    if "  " in text:
        raise ValueError("two spaces in a row; keep one")
    return text


def _link(url: str) -> str:
    if not re.fullmatch(r"https?://[A-Za-z0-9.-]+(:\d+)?(/[^\s<>\"`{}|\\^\[\]]*)?", url):
        raise ValueError(f"not an http(s) link: {url!r}; write it as https://host/path")
    return url


def _orcid(orcid: str) -> str:
    """Refuse a slip of the pen: the last character is computed from the others (ISO 7064, mod 11-2)."""
    total = 0
    for digit in orcid.replace("-", "")[:-1]:
        total = (total + int(digit)) * 2
    last = "0123456789X"[(12 - total % 11) % 11]
    if last != orcid[-1]:
        raise ValueError(f"{orcid} is no ORCID: its check digit would be {last}; copy it again")
    return orcid


def _text(limit: int):
    return Annotated[str, StringConstraints(min_length=1, max_length=limit), AfterValidator(_printable)]


Line = _text(300)  # a title, a name, a label
Prose = _text(1500)  # a summary, a note: one paragraph of plain text, no Markdown
Url = Annotated[str, StringConstraints(max_length=500), AfterValidator(_link)]
Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=60)]
MethodId = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]*(_[a-z0-9]+)*$", max_length=60)]
PaperId = Annotated[str, StringConstraints(pattern=r"^[a-z]+(19|20)[0-9]{2}[a-z0-9]*$", max_length=60)]
TaxonomyId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+(/[a-z0-9-]+){0,2}$", max_length=90)]
Reference = Annotated[str, StringConstraints(pattern=r"^[a-z_]+/[a-z0-9_/-]+$", max_length=100)]  # kind/id
Year = Annotated[int, Field(ge=1950, le=2100)]


class Record(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    _id: str = PrivateAttr("")  # the path is the id: whoever reads the file sets it

    @property
    def id(self) -> str:
        return self._id


# --- papers -----------------------------------------------------------------------------------------------------


PaperKind = Literal[
    "method",
    "survey",
    "benchmark",
    "tool",
    "application",
    "empirical",
    "theory",
]


class Code(Record):
    url: Url
    official: bool = Field(description="true when the paper's authors published it")
    note: Prose | None = None


class Paper(Record):
    """catalog/papers/<year>/<id>.yaml; the id is family name + year as commonly cited + a telling word."""

    title: Line
    aliases: list[Line] = Field(default=[], description="other titles (of the preprint, say) and the names people use")
    authors: list[Line] = Field(min_length=1, description="in full and in the paper's order: Given Family")
    year: Year = Field(description="of the venue; of the first version for a preprint")
    venue: Slug = Field(description="an id of venues.yaml; arxiv for a preprint")
    where: Line | None = Field(default=None, description="volume, issue and pages: 26(307):1-38, or pages 1-38")
    kind: PaperKind
    arxiv: Annotated[str, StringConstraints(pattern=r"^(\d{4}\.\d{4,5}|[a-z-]+(\.[A-Z]{2})?/\d{7})$")] | None = None
    doi: Annotated[str, StringConstraints(pattern=r"^10\.\d{4,9}/[^\s<>\"{}\\]+$")] | None = None
    openreview: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{8,14}$")] | None = None
    url: Url | None = Field(default=None, description="only where there is no arXiv id, DOI or OpenReview id, or beside them")
    taxonomy: list[TaxonomyId] = Field(min_length=1)
    code: list[Code] = []
    summary: Prose = Field(description="one or two sentences in our own words")
    note: Prose | None = Field(default=None, description="what a reader must know: renamed, withdrawn, disputed")

    @property
    def first_known(self) -> tuple[int, ...]:
        """Year and month of the arXiv id, which is that of the first version; without one the year of the venue."""
        found = re.search(r"(\d\d)(\d\d)", self.arxiv or "")
        if found is None:
            return (self.year,)
        year, month = int(found[1]), int(found[2])
        return (1900 + year if year > 90 else 2000 + year), month


# --- methods ----------------------------------------------------------------------------------------------------


Chapter = Literal[
    "averaging",
    "task_vectors",
    "alignment",
    "connectivity",
    "mixing",
    "ensembles",
    "distillation",
    "reuse",
]


class Requirements(Record):
    base: bool = Field(description="needs the pre-trained model theta_0")
    data: Literal["none", "unlabeled", "labeled"]
    gradients: bool
    training: bool = Field(description="runs an optimiser over several steps")
    same_init: bool = Field(description="the models must come from one initialisation")
    same_architecture: bool
    output: Literal["model", "adapter", "masks", "router", "ensemble", "student", "curve", "analysis"]
    inference: Literal[
        "one model", "one model and masks", "one larger model", "router and experts", "all models", "none"
    ] = Field(description="what is held and run to answer one input")


class Related(Record):
    method: MethodId
    how: Literal["builds on", "refines", "compares with", "special case of"]
    note: Prose | None = Field(default=None, description="what differs, in one sentence")


class Elsewhere(Record):
    """The same method in another library, so that a reader who comes from there finds it."""

    library: Line = Field(description="name and version: mergekit 0.1.5")
    name: Line = Field(description="what the method is called there")
    parameters: dict[Line, Line] = Field(default={}, description="their parameter: ours, or a remark")


class Variant(Record):
    who: Line = Field(description="name and version, or commit")
    does: Prose


class Differs(Record):
    """One numbered, checkable statement of how implementations depart from the paper."""

    topic: Line
    paper: Prose = Field(description="how the paper defines it, with the place: Eq. 3, Sec. 4.1")
    variants: list[Variant] = Field(min_length=1)
    input: Prose = Field(description="the smallest input that separates them, with both results")
    test: Annotated[str, StringConstraints(pattern=r"^test_[a-z0-9_]+$")] = Field(description="this method's test of it")


class Method(Record):
    """catalog/methods/<chapter>/<id>.yaml; the id is also the module, the function, the test and the page."""

    name: Line
    aliases: list[Line] = []
    summary: Prose
    introduced_by: PaperId | None = Field(description="null when no paper introduced it; then `note` says where it comes from")
    papers: list[PaperId] = Field(default=[], description="further papers on this method")
    taxonomy: list[TaxonomyId] = Field(min_length=1)
    requirements: Requirements
    related: list[Related] = []
    elsewhere: list[Elsewhere] = []
    differs: list[Differs] = []
    note: Prose | None = None


CHAPTERS: tuple[str, ...] = get_args(Chapter)


# --- codebases, resources, venues, taxonomy ---------------------------------------------------------------------


class Codebase(Record):
    """catalog/codebases/<id>.yaml: toolkits and the official code of papers."""

    name: Line
    url: Url
    kind: Literal["library", "paper code", "list", "project page", "profile"]
    authors: list[Line] = []
    summary: Prose
    papers: list[PaperId] = []
    note: Prose | None = None


class Resource(Record):
    """catalog/resources/<id>.yaml: blogs, videos, threads, hubs."""

    name: Line
    url: Url
    kind: Literal["blog", "video", "thread", "models and datasets", "list"]
    authors: list[Line] = []
    year: Year | None = None
    summary: Prose
    papers: list[PaperId] = []
    methods: list[MethodId] = []
    note: Prose | None = None


class Venue(Record):
    name: Line
    kind: Literal["conference", "journal", "workshop", "preprint server"]
    short: Line = Field(description="as it stands in a citation: NeurIPS")
    aliases: list[Line] = Field(default=[], description="what databases call it: Trans. Mach. Learn. Res.")
    url: Url | None = None


class Node(Record):
    name: Line
    summary: Prose = Field(description="what is here, in one sentence")
    excludes: Prose = Field(description="what is not here and where it is instead, in one sentence")
    introduced_by: PaperId = Field(description="the paper that the topic begins with; it stands in the node or below it")


class NotSame(Record):
    name: Line
    why: Prose = Field(description="how the two are told apart")


class Person(Record):
    """An author of whom more is known than the name in the records; the key is the one spelling that records use."""

    spellings: list[Line] = Field(default=[], description="other ways to write the name, which records do not use")
    printed_in: list[str] = Field(default=[], description="papers that keep one of these spellings, because they print it")
    orcid: Annotated[str, StringConstraints(pattern=r"^\d{4}-\d{4}-\d{4}-\d{3}[\dX]$"), AfterValidator(_orcid)] | None = None
    not_same: list[NotSame] = Field(default=[], description="others whose names are so like this one that check asks")


class Redirect(Record):
    """An id that was published and is no longer a record; the key is its kind and id: papers/doe2020old."""

    to: Reference = Field(description="the record that stands for it now: papers/doe2021new")
    why: Prose


# --- reading lists ----------------------------------------------------------------------------------------------


Mark = Literal[
    "highly recommended",
    "LLaMA-related",
    "code on GitHub",
    "on Hugging Face",
    "old",
    "new",
    "other",
    "after",
]


class Correction(Record):
    was: Prose
    now: Prose | None = Field(default=None, description="null when the right value is not known")
    why: Prose


class Entry(Record):
    """Exactly one of paper, codebase, resource; `listed_as` is the list's own wording."""

    paper: PaperId | None = None
    codebase: Slug | None = None
    resource: Slug | None = None
    listed_as: Line
    marks: list[Mark] = []
    keywords: list[Line] = []
    corrections: list[Correction] = []


class Section(Record):
    heading: Line
    level: Annotated[int, Field(ge=1, le=6)]
    taxonomy: list[TaxonomyId] = Field(default=[], description="the nodes that stand for this heading")
    note: Prose | None = None
    entries: list[Entry] = []


class ReadingList(Record):
    title: Line
    source: Line = Field(description="whose list it is")
    url: Url | None = None
    summary: Prose
    sections: list[Section]
    corrections: list[Correction] = Field(default=[], description="errors of the list that belong to no single entry")


KINDS: dict[str, type[Record]] = {
    "papers": Paper,
    "methods": Method,
    "codebases": Codebase,
    "resources": Resource,
    "reading_lists": ReadingList,
}


# --- helpers for whoever reads the types ------------------------------------------------------------------------


def inner_record(annotation: object) -> type[Record] | None:
    """The record type inside `list[Code]`, `Requirements` or `Code | None`; None for plain values."""
    if isinstance(annotation, type) and issubclass(annotation, Record):
        return annotation
    return next((found for part in get_args(annotation) if (found := inner_record(part))), None)


def nearest(value: str, known: Iterable[str]) -> str | None:
    """The known value that was probably meant."""
    return next(iter(difflib.get_close_matches(value, list(known), n=1, cutoff=0.6)), None)
