"""The inline part of Markdown that lists use: links, images and plain text, in time that grows with the length."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    text: str  # plain text, or the label of a link
    url: str | None = None  # None for plain text
    image: bool = False
    target: bool = True  # false where the link leads nowhere


LONGEST = 20_000  # characters of one entry
_ANCHOR = re.compile(r"""<a\s[^<>]{0,300}?href\s*=\s*["']?([^"'<>\s]*)["']?[^<>]{0,300}>([^<>]{0,500})</a>""", re.I)
_IMAGE_TAG = re.compile(r"<img\s[^<>]{0,2000}>", re.I)
_BREAK = re.compile(r"<br\s{0,3}/?>", re.I)
_TAG = re.compile(r"</?[A-Za-z][^<>]{0,2000}>")
_BARE = re.compile(r"<?(https?://[^\s<>\[\]()\"'`|]+(?:\([^\s<>()]{0,80}\))?)>?")
CODE_SPAN = re.compile(r"(`{1,3})([^`\n]+)\1")
_EMOJI = re.compile(r":[a-z0-9_+-]{2,40}:")


def parts(text: str, references: dict[str, str] | None = None) -> list[Part]:
    """Split text into plain text and links; `references` are the `[name]: url` definitions."""
    text = text[:LONGEST]
    text = _ANCHOR.sub(lambda m: f"[{m[2]}]({m[1]})" if "]" not in m[2] else m[2], text)
    text = CODE_SPAN.sub(lambda m: m[2].translate(HIDDEN), text)
    text = _BREAK.sub(" ", _IMAGE_TAG.sub(" ", text))
    closing, round_closing, last = _partners(text, "[", "]"), _partners(text, "(", ")"), text.rfind(")")
    found: list[Part] = []
    start = position = 0
    while (position := text.find("[", position)) >= 0:
        end = closing.get(position)
        link = _target(text, end, round_closing, last, references, position) if end is not None else None
        if link is None:
            position += 1
            continue
        url, after = link
        image = position > 0 and text[position - 1] == "!" and text[max(0, position - 2) : position - 1] != "\\"
        _plain(text[start : position - image], found)
        found.append(Part(_label(text[position + 1 : end]), url, image, bool(url) and url != "#"))
        start = position = after
    _plain(text[start:], found)
    return found


HIDDEN = str.maketrans({"[": "\ue000", "]": "\ue001", "(": "\ue002", ")": "\ue003", "*": "\ue004", "|": "\ue005", "<": "\ue006"})
_BACK = {ord(hidden): chr(plain) for plain, hidden in HIDDEN.items()}


def _partners(text: str, opening: str, closing: str) -> dict[int, int]:
    """Position of each opening bracket -> position of its partner; escaped ones have none."""
    partner: dict[int, int] = {}
    stack: list[int] = []
    for match in re.finditer(rf"\\.|[{re.escape(opening + closing)}]", text, re.DOTALL):
        if match[0] == opening:
            stack.append(match.start())
        elif match[0] == closing and stack:
            partner[stack.pop()] = match.start()
    return partner


def _target(text, end, round_closing, last, references, start) -> tuple[str, int] | None:
    """(url, position behind it) if a link's label ends at `end`."""
    following = text[end + 1 : end + 2]
    if following == "(":
        close = round_closing.get(end + 1)
        if close is None:
            close = text.find(")", end) if last > end else -1
        if close < 0:
            return None
        inside = " ".join(text[end + 2 : close].split())
        url = re.sub(r""" ["'(].*$""", "", inside)
        url = url[1:-1] if url[:1] == "<" and url[-1:] == ">" else url
        return url.replace("\\", "").strip(), close + 1
    if references and following == "[":
        close = text.find("]", end + 2, end + 202)
        name = text[end + 2 : close].strip() or text[start + 1 : end]
        if close > 0 and name.lower() in references:
            return references[name.lower()], close + 1
    return None


def _label(text: str) -> str:
    """The label as it stands, with the text of images in it instead of the images."""
    text = re.sub(r"!\[([^\[\]]*)\]\([^()]*\)", r"\1", text)
    return html.unescape(_TAG.sub("", text).translate(_BACK)).replace("\\", "")


def _plain(text: str, found: list[Part]) -> None:
    start = 0
    for match in _BARE.finditer(text):
        if match.start() > start:
            found.append(Part(_tidy(text[start : match.start()])))
        found.append(Part("", match[1].rstrip(".,;:!?")))
        start = match.end()
    if start < len(text):
        found.append(Part(_tidy(text[start:])))


def _tidy(text: str) -> str:
    return html.unescape(_TAG.sub("", text).translate(_BACK))


def unmarked(text: str) -> str:
    """Without the marks of emphasis, `:star:` and backslashes."""
    text = _EMOJI.sub(" ", text).replace("**", "").replace("__", "").replace("\\", "").replace("`", "")
    return " ".join(re.sub(r"(?<!\w)[*_](?=\S)|(?<=\S)[*_](?!\w)", "", text).split())
