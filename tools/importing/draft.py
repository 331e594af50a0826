"""Write what a list has and the catalog has not as records with blanks, into a folder of its own."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from pathlib import Path

from tools import fmt
from tools.catalog import BLANK, Catalog, CatalogError
from tools.importing.items import Document, Item, clean, posted, publication, repository, same_link
from tools.importing.match import Index, Match
from tools.importing.topics import EMPTY, Topics
from tools.records import KINDS
from tools.titles import words


def drafts(document: Document, match: Match, catalog: Catalog, name: str) -> dict[str, str]:
    """Path below the folder -> text. Every path is new to the catalog."""
    index, topics = Index(catalog), Topics(catalog)
    written: dict[str, str] = {}
    entry_of: dict[int, tuple[str, str]] = {}
    ids = {kind: Ids(catalog.ids(kind), "" if kind == "papers" else "-") for kind in KINDS}
    for number, item in enumerate(document.items):
        if match.of[number]:
            entry_of[number] = match.of[number]
            continue
        if (first := match.first[number]) != number:
            if first in entry_of:
                entry_of[number] = entry_of[first]
            continue
        nodes = topics.of(document, item.heading)[0] if item.heading is not None else []
        if item.category == "paper":
            pub = publication(item.pub, index.venues)
            year = pub.year or (posted(item.arxiv)[0] if item.arxiv else None)
            year = year if year and 1950 <= year <= 2100 else None
            id = ids["papers"].free(paper_id(item, year))
            written[f"papers/{year or 'undated'}/{id}.yaml"] = fmt.canonical("papers", _paper(item, pub.venue, year, nodes))
            entry_of[number] = "papers", id
        else:
            kind = "codebases" if item.category == "project" else "resources"
            place = repository(item.url or "")
            id = ids[kind].free(_slug(place[1] if place else item.title))
            written[f"{kind}/{id}.yaml"] = fmt.canonical(kind, _project(item, kind))
            entry_of[number] = kind, id
    if document.lists and document.headings and entry_of:
        id = ids["reading_lists"].free(_slug(name))
        written[f"reading_lists/{id}.yaml"] = fmt.canonical("reading_lists", _reading_list(document, topics, entry_of, name))
    return written


def write(folder: Path, files: dict[str, str], home: Path) -> tuple[int, int]:
    """(written, kept). Nothing is overwritten, and nothing is written into the catalog."""
    counts = [0, 0]
    try:
        inside = any((folder / place).resolve().is_relative_to(home.resolve()) for place in ["", *files])
    except (OSError, RuntimeError):
        raise CatalogError(f"{folder}: links in a circle; name another folder with --write DIR") from None
    if inside:
        raise CatalogError(f"{folder}: drafts are not written into the catalog; name another folder with --write DIR")
    for place, text in files.items():
        path = folder / place
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "x", encoding="utf-8", newline="\n") as file:
                file.write(text)
            counts[0] += 1
        except FileExistsError:
            if not path.is_file():
                raise CatalogError(f"{path}: cannot be written; name another folder with --write DIR") from None
            counts[1] += 1
        except OSError as error:
            raise CatalogError(f"{path}: cannot be written ({error.strerror}); name another folder with --write DIR") from None
    return counts[0], counts[1]


def paper_id(item: Item, year: int | None) -> str:
    family = words(item.authors[0])[-1:] if item.authors else []
    family = _ascii("".join(family)) or "unknown"
    name, colon, _ = item.title.partition(":")
    telling = words(name) if colon and len(words(name)) <= 2 else [word for word in words(item.title) if word not in EMPTY]
    return f"{family[:24]}{year or '0000'}{_ascii(telling[0] if telling else '', digits=True)[:20]}"


def _paper(item: Item, venue: str | None, year: int | None, nodes: list[str]) -> dict:
    record = {"title": _line(item.title), "authors": [_line(name) for name in dict.fromkeys(item.authors)]}
    record["authors"] = record["authors"] or [f"{BLANK}: Given Family, one line an author, in the paper's order"]
    record["year"] = year or f"{BLANK}: of the venue; of the first version for a preprint"
    record["venue"] = venue or f"{BLANK}: an id of catalog/venues.yaml; the list says {_line(item.pub)[:100] or 'nothing'}"
    record["kind"] = f"{BLANK}: method, survey, benchmark, tool, application, empirical or theory"
    record |= {key: value for key, value in (("arxiv", item.arxiv), ("doi", item.doi), ("openreview", item.openreview)) if value}
    if not (item.arxiv or item.doi or item.openreview):
        record["url"] = item.url or f"{BLANK}: https://..., or arxiv, doi, openreview instead"
    record["taxonomy"] = list(nodes) or [f"{BLANK}: an id of catalog/taxonomy.yaml"]
    code = [link.url for link in item.code if repository(link.url)]
    code = list({same_link(url): url for url in code}.values())
    if code:
        record["code"] = [{"url": url, "official": f"{BLANK}: true when the paper's authors published it"} for url in code]
    record["summary"] = f"{BLANK}: one or two sentences in your own words"
    return record


def _project(item: Item, kind: str) -> dict:
    choices = (
        "library, paper code, list, project page or profile"
        if kind == "codebases"
        else "blog, video, thread, models and datasets or list"
    )
    record = {"name": _line(item.title), "url": item.url, "kind": f"{BLANK}: {choices}"}
    if item.authors:
        record["authors"] = [_line(name) for name in dict.fromkeys(item.authors)]
    return record | {"summary": f"{BLANK}: one or two sentences in your own words"}


def _reading_list(document: Document, topics: Topics, entry_of: dict[int, tuple[str, str]], name: str) -> dict:
    singular = {"papers": "paper", "codebases": "codebase", "resources": "resource"}
    sections = {
        n: {"heading": _line(h.text) or "Untitled", "level": h.level, "taxonomy": topics.of(document, n)[0], "entries": []}
        for n, h in enumerate(document.headings)
    }
    front = {"heading": "Untitled", "level": 1, "entries": []}
    for number, (kind, id) in sorted(entry_of.items()):
        entry = {singular[kind]: id, "listed_as": _line(document.items[number].title)}
        if keywords := [_line(word) for word in dict.fromkeys(document.items[number].keywords) if _line(word)]:
            entry["keywords"] = keywords
        where = document.items[number].heading
        (front if where is None else sections[where])["entries"].append(entry)
    ordered = ([front] if front["entries"] else []) + [
        sections[n] for n in sorted(sections, key=lambda n: document.headings[n].line)
    ]
    title = document.headings[0].text if document.headings[0].level == 1 else name
    return {
        "title": _line(title) or name,
        "source": f"{BLANK}: whose list it is",
        "summary": f"{BLANK}: one or two sentences in your own words",
        "sections": [{key: value for key, value in section.items() if value != []} for section in ordered],
    }


def _line(text: str) -> str:
    return clean(text)[:300].strip()


def _ascii(text: str, digits: bool = False) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]" if digits else r"[^a-z]", "", plain)


def _slug(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain)[:50].strip("-") or "untitled"


class Ids:
    """Ids that are free: one that is taken gets a letter behind it."""

    def __init__(self, taken: set[str], join: str = ""):
        self.taken, self.join, self.used = set(taken), join, Counter()

    def free(self, id: str) -> str:
        found = id
        while found in self.taken:
            self.used[id] += 1
            found = f"{id}{self.join}{_letters(self.used[id])}"
        self.taken.add(found)
        return found


def _letters(number: int) -> str:
    """1 -> a, 26 -> z, 27 -> aa."""
    letters = ""
    while number:
        number, digit = divmod(number - 1, 26)
        letters = chr(97 + digit) + letters
    return letters
