"""What a list is read into: items with their lines, headings, and findings. Links and publications are understood here."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field

LONGEST_TITLE = 300  # characters; more is a paragraph


@dataclass(frozen=True, order=True)
class Finding:
    line: int
    kind: str  # one of KINDS in tools/importing/report.py
    what: str
    mend: str


@dataclass(frozen=True)
class Link:
    label: str
    url: str
    line: int


@dataclass
class Item:
    """One entry of a list, as the list has it."""

    line: int
    title: str
    url: str | None = None  # where the title leads
    links: list[Link] = field(default_factory=list)  # further links to the paper
    code: list[Link] = field(default_factory=list)
    code_text: str = ""  # words where a code link belongs
    pub: str = ""  # venue and date as written
    pub_line: int = 0
    authors: list[str] = field(default_factory=list)
    cut: bool = False  # the authors end with "et al."
    keywords: list[str] = field(default_factory=list)
    text: str = ""  # all of it, for ids that stand in the text
    heading: int | None = None  # index of its heading
    cells: frozenset[str] = frozenset()  # the columns of its table: code, pub
    category: str = "paper"  # or project, resource
    arxiv: str | None = None
    doi: str | None = None
    openreview: str | None = None

    def __post_init__(self):
        self.cut = self.cut or bool(re.search(r"\bet\.? ?al\b|\band others\b", self.text, re.I))
        self.pub_line = self.pub_line or self.line
        for text in [self.url or "", *(link.url for link in self.links), self.text]:
            self.arxiv = self.arxiv or arxiv_id(text)
            self.openreview = self.openreview or openreview_id(text)
            self.doi = self.doi or doi_of(text)


@dataclass(frozen=True)
class Heading:
    line: int
    level: int
    text: str
    parent: int | None = None  # index


@dataclass
class Document:
    items: list[Item] = field(default_factory=list)
    headings: list[Heading] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    lists: bool = True  # false for BibTeX and CSL-JSON, where nothing is said about headings and cells

    def say(self, line: int, kind: str, what: str, mend: str) -> None:
        self.findings.append(Finding(line, kind, what, mend))


def clean(text: str) -> str:
    """One printable line, single spaces."""
    text = " ".join(text.split())
    kept = "".join(c for c in text if c == " " or (c.isprintable() and unicodedata.category(c) not in ("Cf", "Co", "Cs")))
    return " ".join(kept.split())


def shown(text: str, limit: int = 90) -> str:
    text = clean(text)
    return repr(text if len(text) <= limit else text[: limit - 3] + "...")


# --- links ------------------------------------------------------------------------------------------------------

_ARXIV = re.compile(
    r"(?:arxiv\.org/(?:abs|pdf|html|e-print)/|ar5iv\.(?:labs\.arxiv\.)?org/(?:abs|html)/|huggingface\.co/papers/"
    r"|alphaxiv\.org/(?:abs|pdf)/|arxiv[.:]\s?)(\d{4}\.\d{4,5}|[a-z-]{2,20}(?:\.[A-Z]{2})?/\d{7})(?!\d)",
    re.I,
)
_OPENREVIEW = re.compile(r"openreview\.net/(?:forum|pdf|attachment)\?(?:[^\s#]{0,80}&)?id=([\w-]{8,14})(?![\w-])", re.I)
_DOI = re.compile(r"\b(10\.\d{4,9}/[^\s<>\"{}\\|]{1,150})")
PAPER_HOSTS = (
    "arxiv.org openreview.net aclanthology.org aclweb.org thecvf.com doi.org ieeexplore.ieee.org dl.acm.org nips.cc neurips.cc "
    "mlr.press ecva.net aaai.org nature.com sciencedirect.com springer.com jmlr.org ijcai.org alphaxiv.org ar5iv.org "
    "semanticscholar.org biorxiv.org mdpi.com science.org wiley.com isca-speech.org bmvc2022.org ojs.aaai.org"
).split()
REPOSITORY_HOSTS = ("github.com", "gitlab.com", "bitbucket.org", "codeberg.org", "gitee.com")


def arxiv_id(text: str) -> str | None:
    match = _ARXIV.search(text)
    return match[1] if match and (not match[1][0].isdigit() or 1 <= int(match[1][2:4]) <= 12) else None


def openreview_id(text: str) -> str | None:
    match = _OPENREVIEW.search(text)
    return match[1] if match else None


def doi_of(text: str) -> str | None:
    """The DOI; an arXiv id in the form of one is none."""
    match = _DOI.search(text)
    if not match or match[1].lower().startswith("10.48550/"):
        return None
    doi = match[1]
    while doi and (doi[-1] in ".,;'”’]" or (doi[-1] == ")" and doi.count("(") < doi.count(")"))):
        doi = doi[:-1]
    return doi


def host_and_path(url: str) -> tuple[str, str]:
    bare = re.sub(r"^https?://(www\.)?", "", url.strip().split("#")[0].split("?")[0], flags=re.I)
    host, _, path = bare.partition("/")
    return host.lower(), path.strip("/")


def same_link(url: str) -> str:
    """One spelling for the links that lead to one place."""
    if number := arxiv_id(url):
        return f"arxiv {number}"
    if forum := openreview_id(url):
        return f"openreview {forum}"
    if doi := doi_of(url):
        return f"doi {doi.lower()}"
    link = re.sub(r"^https?://(www\.)?", "", url.split("#")[0].rstrip("/"), flags=re.I)
    host, slash, rest = link.partition("/")
    if host.lower() in (*REPOSITORY_HOSTS, "huggingface.co"):
        rest = rest.lower().split("?")[0].rstrip("/").removesuffix(".git")
    return host.lower() + slash + rest


def repository(url: str) -> tuple[str, str, str] | None:
    """(owner, name, path within) of a link to a repository."""
    host, path = host_and_path(url)
    parts = path.split("/")
    if host not in REPOSITORY_HOSTS or len(parts) < 2 or not all(parts[:2]) or parts[0] in ("orgs", "topics", "sponsors"):
        return None
    return parts[0], parts[1].removesuffix(".git"), "/".join(parts[2:])


def is_paper_link(url: str) -> bool:
    host, path = host_and_path(url)
    if host == "huggingface.co":
        return path.startswith("papers/")
    return path.lower().endswith(".pdf") or any(host == known or host.endswith("." + known) for known in PAPER_HOSTS)


# --- where and when ---------------------------------------------------------------------------------------------

_YEAR = re.compile(r"(?<!\d)(?:19|20)\d\d(?!\d)")
_SHORT_YEAR = re.compile(r"(?:(?<=[A-Za-z])|(?<=['’`])|(?<=[A-Za-z] ))(\d\d)(?![\d.])")
_MONTH = re.compile(r"(?<!\d)(\d\d)[./](0[1-9]|1[0-2])(?!\d)")  # 24.05
_FULL_MONTH = re.compile(r"(?<!\d)((?:19|20)\d\d)[./-](0[1-9]|1[0-2])(?!\d)")
_NAMED_MONTH = re.compile(r"\b(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}\b", re.I)
MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
OTHER_NAMES = {
    "nips": "neurips",
    "tpami": "ieee tpami",
    "pami": "ieee tpami",
    "nmi": "nature machine intelligence",
    "corr": "arxiv",
}
STATUS = (
    "spotlight oral poster workshop workshops findings track industry main highlight tutorial demo preprint long short best "
    "paper award"
).split()


@dataclass(frozen=True)
class Publication:
    venue: str | None  # an id of the catalog's venues
    year: int | None
    month: int | None
    workshop: bool
    rest: tuple[str, ...]  # words that are neither


def publication(text: str, venues: dict[str, list[str]]) -> Publication:
    """Understand "[ICLR23]", "NeurIPS 2024 spotlight" or "ArXiv 24.05"; `venues` is id -> the ways to name it."""
    text = clean(text.replace("*", " ").replace("_", " "))[:200]
    year = month = None
    if match := _FULL_MONTH.search(text):
        year, month = int(match[1]), int(match[2])
    elif match := _YEAR.search(text):
        year = int(match[0])
    elif match := _MONTH.search(text):
        year, month = 2000 + int(match[1]), int(match[2])
    elif match := _SHORT_YEAR.search(text):
        year = 2000 + int(match[1]) if int(match[1]) < 60 else 1900 + int(match[1])
    if year and month is None and (match := _NAMED_MONTH.search(text)):
        month = MONTHS.index(match[1].lower()) + 1
    now = [word for word in re.findall(r"[^\W\d_]+", text.casefold())]
    now = [word for part in now for word in OTHER_NAMES.get(part, part).split()]
    workshop = any(word.startswith("workshop") for word in now) or bool(re.search(r"\b(CVPR|ICCV|ECCV|WACV)W\b", text))
    best: tuple[int, str | None, set[str]] = (0, None, set())
    for id, names in venues.items():
        for name in names:
            parts = name.split()
            if len(parts) > best[0] and parts and _within(parts, now):
                best = (len(parts), id, set(parts))
    rest = tuple(word for word in now if word not in best[2] and word[:3] not in MONTHS and len(word) > 3)
    return Publication(best[1], year, month, workshop, rest)


def _within(parts: list[str], now: list[str]) -> bool:
    return any(now[i : i + len(parts)] == parts for i in range(len(now) - len(parts) + 1))


def posted(arxiv: str) -> tuple[int, int]:
    """Year and month of an arXiv id."""
    digits = re.search(r"(\d\d)(\d\d)", arxiv)
    year = int(digits[1])
    return (1900 if year > 90 else 2000) + year, int(digits[2])
