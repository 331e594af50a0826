"""`python -m tools import FILE [--write DIR]`: compare a list of papers with the catalog, and draft what is new.

FILE is BibTeX (.bib), CSL-JSON (.json) or a list in Markdown. The report has one line a finding,
`file:line: what; how to mend it`, and a summary. A report is no failure: the exit code is 0 unless FILE cannot be read.
Drafts are records with blanks marked TODO. They are written only with --write, never into the catalog, never over a file.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

from tools.catalog import Catalog, CatalogError, load_from
from tools.importing import bibtex, csl, draft, markdown, match
from tools.importing.items import Document

MAX_BYTES = 5_000_000
KINDS = {  # of findings, in the order of the summary
    "known": "known",
    "new": "new",
    "twice": "twice in the list",
    "two links": "same paper under two links",
    "one link": "one link under two titles",
    "disagree": "link and title disagree",
    "alike": "perhaps one work under two titles",
    "title": "titles cut, old or misspelt",
    "authors": "lists of authors",
    "venue": "venues or years",
    "code": "code links",
    "missing": "missing",
    "label": "labels",
    "section": "empty sections",
    "heading": "headings",
    "anchor": "contents",
    "placed": "perhaps misplaced",
    "topic": "topics of headings",
    "markdown": "Markdown",
    "bibtex": "BibTeX",
    "csl": "CSL-JSON",
}


def add_parser(commands) -> None:
    parser = commands.add_parser("import", help="compare a list of papers with the catalog and draft what is new")
    parser.add_argument("file", type=Path, metavar="FILE", help="BibTeX, CSL-JSON or a list in Markdown")
    parser.add_argument("--write", type=Path, metavar="DIR", help="write drafts of what is new into DIR, outside the catalog")
    parser.add_argument("--quiet", action="store_true", help="leave out what is known and the topics of headings")
    parser.add_argument("--catalog", type=Path, default=Path("catalog"), metavar="DIR")
    parser.set_defaults(run=run)


def run(args) -> int:
    catalog = load_from(args.catalog)
    if catalog.problems:
        print(
            f"{len(catalog.problems)} problems in the catalog; their records are left out (`python -m tools check`)",
            file=sys.stderr,
        )
    document, found = read(args.file, catalog)
    name = str(args.file) if str(args.file).isprintable() else ascii(str(args.file))
    for finding in document.findings:
        if not args.quiet or finding.kind not in ("known", "topic"):
            print(f"{name}:{finding.line}: {finding.what}; {finding.mend}")
    print(summary(document))
    if args.write:
        files = draft.drafts(document, found, catalog, args.file.stem)
        written, kept = draft.write(args.write, files, catalog.folder)
        where = str(args.write) if str(args.write).isprintable() else ascii(str(args.write))
        print(
            f"{written} drafts written into {where}" + (f", {kept} kept that were there" if kept else "") + "; fill in every TODO"
        )
    return 0


def read(path: Path, catalog: Catalog) -> tuple[Document, match.Match]:
    """The list with every finding, and what its items are in the catalog."""
    text = text_of(path)
    try:
        document = parse(text, path.suffix.lower())
    except CatalogError as error:
        raise CatalogError(f"{path}: {error}") from None
    return document, match.compare(document, catalog)


def parse(text: str, suffix: str = ".md") -> Document:
    start = text.lstrip()[:1]
    if suffix == ".bib" or (suffix not in (".md", ".json") and start == "@"):
        return bibtex.read(text)
    if suffix == ".json" or (suffix != ".md" and start in ("[", "{") and _is_json(text)):
        return csl.read(text)
    return markdown.read(text)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def text_of(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise CatalogError(f"{path}: cannot be read ({error.strerror}); check that it is a readable file") from None
    except ValueError:
        raise CatalogError("a file's name has no null character; correct it") from None
    if len(data) > MAX_BYTES:
        raise CatalogError(f"{path}: larger than {MAX_BYTES} bytes; split the list")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise CatalogError(f"{path}:{line}: not UTF-8; save the file in UTF-8") from None


def summary(document: Document) -> str:
    counts = Counter(finding.kind for finding in document.findings)
    said = ", ".join(f"{counts[kind]} {name}" for kind, name in KINDS.items() if counts[kind])
    return f"{len(document.items)} entries: {said}" if said else f"{len(document.items)} entries, nothing found"
