"""`catalog/sources.tsv`: in which two places the facts of a paper were seen. One line a paper: id, place, place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tools.catalog import Catalog, CatalogError, Problem

FILE = "sources.tsv"
_OPAQUE = re.compile(r"\b\d{8,}\b(?![./-])|\bstored\b")  # a number that only one machine understands


def places(catalog: Catalog) -> dict[str, list[str]]:
    """Paper -> the places that confirm it; only lines that are as they should be."""
    return {id: [first, second] for _, id, first, second in _rows(_lines(catalog.folder))}


def sources(catalog: Catalog) -> Iterator[Problem]:
    """Every line of sources.tsv names a paper once, in order, and two places that a reader understands."""
    path, before = catalog.folder / FILE, ""
    for number, line in enumerate(_lines(catalog.folder), 1):
        columns = line.split("\t")
        if len(columns) != 3 or not all(text and text == text.strip() and text.isprintable() for text in columns):
            yield Problem(path, number, "not three columns", "write id, place and place with one tab between them")
            continue
        id, *named = columns
        if id not in catalog.ids("papers"):
            yield Problem(path, number, f"unknown paper {id!r}", "write the id of a record or delete the line")
        elif id <= before:
            yield Problem(path, number, f"{id} stands after {before}", "one line a paper, sorted by id")
        if named[0] == named[1]:
            yield Problem(path, number, f"{id} is confirmed twice in one place", "name two places")
        if opaque := next((text for text in named if _OPAQUE.search(text)), None):
            yield Problem(path, number, f"{opaque!r} is no place that a reader can find", "say what it is and where")
        before = id


def with_line(folder: Path, id: str, first: str, second: str) -> str:
    """The text of the file with a line for a paper in the place that sorting gives it."""
    lines = {line.partition("\t")[0]: line for line in _lines(folder)} | {id: f"{id}\t{first}\t{second}"}
    return "".join(f"{line}\n" for _, line in sorted(lines.items()))


def _lines(folder: Path) -> list[str]:
    try:
        return (folder / FILE).read_text(encoding="utf-8").split("\n")[:-1]
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogError(f"{folder / FILE}: cannot be read ({error}); save it as UTF-8 text") from None


def _rows(lines: list[str]) -> Iterator[tuple[int, str, str, str]]:
    for number, line in enumerate(lines, 1):
        columns = line.split("\t")
        if len(columns) == 3 and all(columns):
            yield number, *columns
