"""One source's answer about one paper, cleaned: strangers wrote it, and any value may have any type."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from dataclasses import dataclass

from tools.importing.items import LONGEST_TITLE, arxiv_id, clean, doi_of, openreview_id, repository

_TAG = re.compile(r"</?[A-Za-z][\w:-]*(\s+[\w:-]+\s*=[^<>]*)?\s*/?>")  # <i>, <mml:math display="inline">; not "a<b and c>d"
_PEOPLE = 500  # authors of a paper; more is a mistake


@dataclass(frozen=True)
class Found:
    source: str
    title: str
    authors: tuple[str, ...] = ()  # Given Family, in the paper's order
    year: int | None = None
    venue: str = ""  # in the source's words; "arXiv" for a preprint
    where: str = ""  # volume(issue):pages
    arxiv: str | None = None
    doi: str | None = None
    openreview: str | None = None
    url: str | None = None
    code: tuple[str, ...] = ()  # repositories that it states
    about: str = ""  # the abstract: compared with the catalog's records, never stored
    comment: str = ""  # the authors' remark on arXiv: "Accepted at ICLR 2024"
    gone: str = ""  # retracted or withdrawn, in the source's words
    by_id: bool = False  # answered for an id; otherwise for a title
    merged: bool = False  # the source keeps preprint and published version as one: its year may be the preprint's


def text(value: object, limit: int = 300) -> str:
    """One printable line without markup; nothing where it is no text or longer than `limit`."""
    if not isinstance(value, str):
        return ""
    plain = clean(_TAG.sub("", html.unescape(html.unescape(value[:20_000]))))
    return plain if len(plain) <= limit else ""


def title(value: object) -> str:
    found = text(value, LONGEST_TITLE)
    return found if found.endswith("..") else found.removesuffix(".").rstrip()


def names(values: Iterable[object]) -> tuple[str, ...]:
    """Names as Given Family, without the numbers by which a database tells namesakes apart; all or none."""
    found = []
    for value in values:
        name = re.sub(r"\s+\d{4}$", "", text(value, 150))
        family, comma, given = name.partition(",")
        found.append(clean(f"{given} {family}") if comma else name)
    return tuple(found) if all(found) and len(found) <= _PEOPLE else ()


def year(value: object) -> int | None:
    """A year from a number or from a text that begins with one."""
    match = re.match(r"(\d{4})(?!\d)", str(value)) if isinstance(value, (int, str)) and not isinstance(value, bool) else None
    return int(match[1]) if match and 1950 <= int(match[1]) <= 2100 else None


def doi(value: object) -> str | None:
    """A DOI in lower case; None for arXiv's own."""
    found = doi_of(text(value))
    return found.lower() if found else None


def arxiv(value: object) -> str | None:
    """An arXiv id without its version, from an id, a link or arXiv's DOI."""
    line = re.sub(r"^(https?://(dx\.)?doi\.org/)?10\.48550/arxiv\.", "arxiv:", text(value), flags=re.I)
    bare = re.fullmatch(r"(\d{4}\.\d{4,5}|[a-z-]{2,20}(\.[A-Z]{2})?/\d{7})(v\d+)?", line)
    return arxiv_id(f"arxiv:{line}" if bare else line)


def openreview(value: object) -> str | None:
    return openreview_id(text(value))


def place(volume: object, issue: object, pages: object) -> str:
    """26(307):1-38, or the pages alone."""
    given = ["" if value is None else text(str(value), 40) for value in (volume, issue, pages)]
    volume, issue, pages = (re.sub(r"\s*[-–—]+\s*", "-", value) for value in given)
    if not re.fullmatch(r"[A-Za-z]?\d+(-[A-Za-z]?\d+)?", pages):
        pages = ""
    if not re.fullmatch(r"\d+", volume):
        return pages
    issue = f"({issue})" if re.fullmatch(r"[\w/-]+", issue) else ""
    return f"{volume}{issue}:{pages}" if pages else f"{volume}{issue}"


def repositories(*texts: str) -> tuple[str, ...]:
    """The code repositories that a text links."""
    links = (url.rstrip(".,;:)]}'\"") for line in texts for url in re.findall(r"https?://[^\s<>{}|\\^`\"]+", line))
    found = (f"https://{host}/{owner}/{name}" for url in links if (parts := _parts(url)) for host, owner, name in [parts])
    return tuple(dict.fromkeys(found))


def _parts(url: str) -> tuple[str, str, str] | None:
    found = repository(url)
    if not found or not all(re.fullmatch(r"[\w.-]+", part) for part in found[:2]):
        return None
    return re.sub(r"^https?://(www\.)?", "", url, flags=re.I).partition("/")[0].lower(), found[0], found[1]


def dig(value: object, *path: str | int) -> object:
    """What is under a path of keys and positions; None where the answer has another shape."""
    for key in path:
        if isinstance(value, dict) and isinstance(key, str):
            value = value.get(key)
        elif isinstance(value, list) and isinstance(key, int) and -len(value) <= key < len(value):
            value = value[key]
        else:
            return None
    return value


def listed(value: object) -> list:
    """A list as it is; one thing as a list of it."""
    return value if isinstance(value, list) else [] if value is None else [value]
