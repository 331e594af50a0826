"""Read a BibTeX file into items."""

from __future__ import annotations

import re

import bibtexparser

from tools.importing.items import LONGEST_TITLE, Document, Item, Link, arxiv_id, clean, repository, shown

_ACCENTS = {
    "`": "\u0300",
    "'": "\u0301",
    "^": "\u0302",
    '"': "\u0308",
    "~": "\u0303",
    "=": "\u0304",
    ".": "\u0307",
    "u": "\u0306",
    "v": "\u030c",
    "H": "\u030b",
    "c": "\u0327",
    "k": "\u0328",
    "r": "\u030a",
}
_LETTERS = {"ss": "ß", "o": "ø", "O": "Ø", "l": "ł", "L": "Ł", "ae": "æ", "AE": "Æ", "aa": "å", "AA": "Å", "i": "i", "j": "j"}


def read(text: str) -> Document:
    import logging

    document = Document(lists=False)
    logging.getLogger("bibtexparser").setLevel(logging.CRITICAL)
    library = bibtexparser.parse_string(text, parse_stack=[*_middlewares()])
    for block in library.failed_blocks:
        line = (block.start_line or 0) + 1
        if isinstance(block, bibtexparser.model.DuplicateBlockKeyBlock):
            document.say(line, "bibtex", f"the key {shown(block.key)} is used twice", "give one of the two another key")
            if isinstance(block.ignore_error_block, bibtexparser.model.Entry):
                _add(block.ignore_error_block, line, document)
        else:
            document.say(
                line, "bibtex", "an entry that cannot be read", "balance its braces and quotes, one comma behind each field"
            )
    for entry in library.entries:
        _add(entry, (entry.start_line or 0) + 1, document)
    document.items.sort(key=lambda item: item.line)
    return document


def _middlewares():
    from bibtexparser.middlewares import RemoveEnclosingMiddleware, ResolveStringReferencesMiddleware

    return ResolveStringReferencesMiddleware(), RemoveEnclosingMiddleware()


def _add(entry, line: int, document: Document) -> None:
    fields = {field.key.lower(): plain(str(field.value)) for field in entry.fields}
    title = fields.get("title", "").rstrip(".")[:LONGEST_TITLE]
    if not title:
        document.say(line, "missing", f"the entry {shown(entry.key)} has no title", "add one")
        return
    where = fields.get("booktitle") or fields.get("journal") or fields.get("publisher", "")
    if re.search(r"\barxiv\b|\bcorr\b", where, re.I):
        where = "arXiv"
    archive = (
        fields.get("eprint", "")
        if re.search("arxiv", fields.get("archiveprefix", fields.get("eprinttype", "arxiv")), re.I)
        else ""
    )
    raw = " ".join(fields.values())
    text = f"arxiv:{archive} " if archive and arxiv_id(f"arxiv:{archive}") else ""
    text += f"{fields.get('doi', '')} {fields.get('journal', '')} {fields.get('note', '')} {fields.get('howpublished', '')}"
    url = fields.get("url") or None
    code = [Link("code", found, line) for found in re.findall(r"https?://[^\s,;{}]+", raw) if repository(found)]
    if url and repository(url):
        url = None if text.strip() else url
    item = Item(line, title, url, code=code, pub=clean(f"{where} {fields.get('year') or fields.get('date', '')[:4]}"), text=text)
    item.cut = bool(re.search(r"\band\s+others\b|\bet al\b", fields.get("author", "")[-40:]))
    item.authors = [name for author in re.split(r"\s+and\s+", fields.get("author", "")[:5000]) if (name := _name(author))]
    item.category = "project" if url and repository(url) and not where else "paper"
    document.items.append(item)


def plain(text: str) -> str:
    """LaTeX text as plain text, as far as titles and names need it."""
    import unicodedata

    text = text[:20_000]
    text = re.sub(r"\\(ss|ae|AE|aa|AA|[oOlLij])(?![A-Za-z])\s?(?:\{\})?", lambda m: _LETTERS[m[1]], text)
    accent = r"""\\([`'^"~=.]|[uvHckr](?=[\s{]))\s*\{?\s*([A-Za-z])\}?"""
    text = re.sub(accent, lambda m: unicodedata.normalize("NFC", m[2] + _ACCENTS[m[1]]), text)
    text = text.replace("---", "—").replace("--", "–").replace("~", " ").replace("``", "“").replace("''", "”")
    text = re.sub(r"\\(text|math|emph|bf|it|em|rm|sc)[a-z]*(?![A-Za-z])", "", text)
    text = re.sub(r"\\([&%$#_{}])", r"\1", text)
    return clean(re.sub(r"[{}]", "", text).replace("\\", ""))


def _name(author: str) -> str:
    family, comma, given = author.partition(",")
    name = clean(f"{given} {family}" if comma else author)
    return "" if name.lower() in ("others", "et al.") else name
