"""What is broken in a Markdown text whatever it lists: bold markers, levels and names of headings, links within the page."""

from __future__ import annotations

import difflib
import re
from collections import Counter

from tools.importing.blocks import RULE
from tools.importing.inline import CODE_SPAN, parts
from tools.importing.items import Document, shown

SUGGESTIONS = 100  # looking for the nearest anchor costs time; past this many only the place is named


def bold(lines: list[str], document: Document) -> None:
    for number, line in enumerate(lines, 1):
        if "**" not in line:
            continue
        line = CODE_SPAN.sub(" ", line)
        if RULE.fullmatch(line):
            continue
        for cell in re.split(r"(?<!\\)\|", line):
            pieces = re.split(r"(?<!\\)\*{2}(?!\*)", cell)
            for inside in pieces[1::2] if len(pieces) % 2 else []:
                if inside.strip() and inside != inside.strip():
                    mend = f"write **{inside.strip()[:60]}**"
                    document.say(
                        number, "markdown", f"a space inside the bold markers of {shown('**' + inside + '**', 60)}", mend
                    )


def headings(document: Document) -> None:
    """Levels that jump, headings and numbers used twice."""
    before, seen, numbers = 0, {}, {}
    written = [heading for heading in document.headings if heading.line]
    for heading in sorted(written, key=lambda heading: heading.line):
        if before and heading.level > before + 1:
            what = f"the heading {shown(heading.text)} jumps from level {before} to level {heading.level}"
            document.say(heading.line, "heading", what, f"write {'#' * (before + 1)}")
        before = heading.level
        key = (heading.parent, heading.text.casefold())
        other = seen.setdefault(key, heading.line)
        if other != heading.line:
            what = f"the heading {shown(heading.text)} stands in line {other} too"
            document.say(heading.line, "heading", what, "join the two sections or rename one")
        elif match := re.match(r"\d+(\.\d+)*\.?(?=\s)", heading.text):
            number = match[0].rstrip(".")
            if len(number) < 4 or "." in number:
                other = numbers.setdefault(number, heading.line)
                if other != heading.line:
                    document.say(heading.line, "heading", f"the number {number} stands in line {other} too", "number it anew")


def anchors(lines: list[str], references: dict[str, str], document: Document) -> None:
    """Links within the page that lead nowhere, and sections that the table of contents leaves out."""
    known: dict[str, int] = {}
    used: Counter[str] = Counter()
    for heading in sorted(document.headings, key=lambda heading: heading.line):
        slug = _slug(heading.text)
        name = f"{slug}-{used[slug]}" if used[slug] else slug
        used[slug] += 1
        known[name] = heading.line
    for line in lines:
        if "<" in line:
            known |= {name: 0 for name in re.findall(r"<[a-z][^<>]{0,200}?\s(?:name|id)\s*=\s*[\"']?([^\"'\s<>]+)", line, re.I)}
    names = {heading.line: heading.text for heading in document.headings}
    linked: dict[str, int] = {}
    left, shapes = SUGGESTIONS, [name[:80] for name in known if name]
    close: dict[str, str] = {}  # anchors that lead nowhere -> the one that was meant
    for number, line in enumerate(lines, 1):
        if "#" not in line:
            continue
        for part in parts(line, references):
            if part.url and part.url.startswith("#") and len(part.url) > 1:
                anchor = part.url[1:]
                linked.setdefault(anchor, number)
                if anchor in known:
                    _other_name(document, number, part.text, names.get(known[anchor], ""))
                    continue
                lower, slug, near = anchor.lower(), _slug(part.text), []
                left -= 1
                if lower in known or slug in known:
                    near = [lower if lower in known else slug]
                elif left > 0:
                    near = difflib.get_close_matches(lower[:80], shapes, n=1) or difflib.get_close_matches(slug[:80], shapes, n=1)
                close |= {anchor: near[0]} if near else {}
                if near:
                    _other_name(document, number, part.text, names.get(known[near[0]], ""))
                reason = " (anchors are in lower case)" if lower in known else ""
                mend = f"write #{near[0]}{reason}" if near else "link a heading of the page or delete it"
                document.say(number, "anchor", f"no heading has the anchor {shown(part.url, 70)}", mend)
    listed = {known.get(close.get(anchor, anchor), 0) for anchor in linked}
    if len(listed) < 4:
        return
    filled, slugs = {item.heading for item in document.items}, {line: name for name, line in known.items()}
    for index, heading in enumerate(document.headings):
        if index in filled and heading.line not in listed and heading.text:
            what = f"the section {shown(heading.text)} is not in the table of contents"
            document.say(heading.line, "anchor", what, f"add a link to #{slugs.get(heading.line, '')}")


def _other_name(document: Document, line: int, label: str, heading: str) -> None:
    """A label of the contents that is nearly, and only nearly, the heading that it leads to."""
    a, b = re.sub(r"[\W_]", "", label.lower())[:80], re.sub(r"[\W_]", "", heading.lower())[:80]
    if a != b and a not in b and b not in a and difflib.SequenceMatcher(None, a, b).ratio() >= 0.85:
        document.say(line, "anchor", f"the contents call {shown(heading)} {shown(label)}", "give both one name")


def _slug(text: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
