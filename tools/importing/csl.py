"""Read a CSL-JSON file (what Zotero and others export) into items."""

from __future__ import annotations

import json
import re

from tools.catalog import CatalogError
from tools.importing.items import LONGEST_TITLE, Document, Item, Link, clean, repository, shown


def read(text: str) -> Document:
    document = Document(lists=False)
    for position, record in _records(text):
        line = text.count("\n", 0, position) + 1
        if isinstance(record, dict):
            _add(record, line, document)
        else:
            document.say(line, "csl", "an entry that is not an object", 'write {"title": ..., "author": [...]}')
    return document


def _records(text: str):
    """(position, value) of each entry of the list."""
    decoder, space = json.JSONDecoder(), re.compile(r"[\s,]*")
    try:
        start = space.match(text).end()
        if text[start : start + 1] != "[":
            whole, _ = decoder.raw_decode(text, start)
            items = whole.get("items", [whole]) if isinstance(whole, dict) else [whole]
            yield from ((start, item) for item in (items if isinstance(items, list) else [items]))
            return
        position = space.match(text, start + 1).end()
        while text[position : position + 1] not in ("]", ""):
            value, end = decoder.raw_decode(text, position)
            yield position, value
            position = space.match(text, end).end()
    except json.JSONDecodeError as error:
        raise CatalogError(f"line {error.lineno}: not JSON ({error.msg}); export the list as CSL-JSON") from None
    except (RecursionError, ValueError):
        raise CatalogError("not a list of references in CSL-JSON; export it again") from None


def _add(record: dict, line: int, document: Document) -> None:
    def text(key: str) -> str:
        value = record.get(key, "")
        value = value[0] if isinstance(value, list) and value else value
        return clean(re.sub(r"</?[a-z]{1,8}>", "", str(value)[:5000])) if isinstance(value, (str, int)) else ""

    title = text("title").rstrip(".")[:LONGEST_TITLE]
    if not title:
        document.say(line, "missing", f"the entry {shown(text('id'))} has no title", "add one")
        return
    where = text("container-title") or text("event-title") or text("publisher")
    where = "arXiv" if re.search(r"\barxiv\b", where, re.I) else where
    note = " ".join(text(key) for key in ("note", "number", "archive", "archive_location", "DOI"))
    url = text("URL") or None
    code = [Link("code", found, line) for found in re.findall(r"https?://[^\s,;{}]+", note) if repository(found)]
    item = Item(line, title, url, code=code, pub=clean(f"{where} {_year(record)}"), text=note)
    item.authors = _names(record.get("author"))
    item.category = "project" if url and repository(url) else "paper"
    document.items.append(item)


def _year(record: dict) -> str:
    issued = record.get("issued")
    try:
        return str(int(issued["date-parts"][0][0]))
    except (TypeError, KeyError, IndexError, ValueError):
        literal = issued.get("literal", issued.get("raw", "")) if isinstance(issued, dict) else issued
        match = re.search(r"(19|20)\d\d", str(literal)[:100])
        return match[0] if match else ""


def _names(authors: object) -> list[str]:
    names = []
    for author in authors[:200] if isinstance(authors, list) else []:
        if isinstance(author, dict):
            keys = ("given", "non-dropping-particle", "family") if author.get("family") else ("literal",)
            names.append(clean(" ".join(author[key][:100] for key in keys if isinstance(author.get(key), str))))
    return [name for name in names if name]
