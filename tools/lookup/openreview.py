"""OpenReview: submissions and where they were accepted. Newer venues answer on one host, older ones on another."""

from __future__ import annotations

import re
import time

from tools.lookup import found
from tools.lookup.found import Found, dig, listed
from tools.lookup.guard import Unavailable
from tools.lookup.http import Web

NAME = "OpenReview"
URLS = ("https://api2.openreview.net/notes", "https://api.openreview.net/notes")
NOT_ACCEPTED = re.compile(r"\b(submitted|submission|withdrawn|rejected?|under review|desk)\b", re.I)
REJECTED = re.compile(r"rejected|withdrawn|under_review", re.I)


def by_id(web: Web, id: str) -> Found | None:
    trouble = None
    for url in URLS:
        try:
            notes = listed(dig(web.json(url, {"id": id}), "notes"))
        except Unavailable as error:
            trouble = error
            continue
        for note in notes:
            if dig(note, "id") == id and (paper := _paper(note, id)):
                return paper
    if trouble:
        raise trouble
    return None


def _paper(note: object, id: str) -> Found | None:
    def content(key: str) -> object:
        value = dig(note, "content", key)
        return dig(value, "value") if isinstance(value, dict) else value  # the older interface has plain values

    title = found.title(content("title"))
    if not title:
        return None
    venue, where = found.text(content("venue")), found.text(content("venueid"))
    if "workshop" in where.lower() and "workshop" not in venue.lower():
        venue = f"{venue} workshop"  # "ME-FoMo 2023 Poster"
    accepted = bool(venue) and not NOT_ACCEPTED.search(venue) and not REJECTED.search(where)
    code = " ".join(found.text(content(key)) for key in ("code", "github", "code_link", "software"))
    match = re.search(r"\b(?:19|20)\d\d\b", venue)
    return Found(
        NAME,
        title,
        found.names(listed(content("authors"))),
        year=(int(match[0]) if match else _year(dig(note, "pdate"))) if accepted else None,
        venue=venue if accepted else "",
        openreview=id,
        code=found.repositories(code, found.text(content("abstract"), 10_000)),
        about=found.text(content("abstract"), 10_000),
        gone=venue if re.search(r"withdrawn", venue, re.I) else "",
        by_id=True,
    )


def _year(milliseconds: object) -> int | None:
    if not isinstance(milliseconds, int) or not 0 < milliseconds < 4e12:
        return None
    return found.year(time.gmtime(milliseconds / 1000).tm_year)
