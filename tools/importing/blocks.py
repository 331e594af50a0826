"""The blocks of a Markdown text, each with its line: headings, tables, bullets with what is below them, paragraphs."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from tools.importing.inline import CODE_SPAN, HIDDEN, parts, unmarked
from tools.importing.items import Document, Heading, clean, shown

LONGEST_LINE = 20_000


@dataclass
class Bullet:
    line: int
    indent: int
    text: str
    children: list[Bullet] = field(default_factory=list)


@dataclass
class Row:
    line: int
    cells: list[str]


@dataclass
class Table:
    line: int
    header: list[str]
    rows: list[Row]


@dataclass
class Paragraph:
    line: int
    text: str


Block = Heading | Bullet | Table | Paragraph


# --- lines ------------------------------------------------------------------------------------------------------


def lines_of(text: str, document: Document) -> list[str]:
    """The lines without front matter, comments, code blocks and control characters; what is left out leaves its line."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    fence, comment, front = (
        "",
        False,
        bool(lines) and lines[0].strip() == "---" and "---" in (line.strip() for line in lines[1:60]),
    )
    for index, line in enumerate(lines):
        if len(line) > LONGEST_LINE:
            document.say(index + 1, "markdown", f"a line of {len(line)} characters", f"split it; only {LONGEST_LINE} were read")
            line = line[:LONGEST_LINE]
        line = line.expandtabs(4)
        if bad := next((c for c in line if not c.isprintable() and c not in "\u00a0\u3000\u2028\u200b\u200d\ufeff\u00ad"), None):
            document.say(index + 1, "markdown", f"control character U+{ord(bad):04X}", "delete it")
        line = "".join(c if c.isprintable() else " " for c in line)
        if front:
            front = index == 0 or line.strip() != "---"
            lines[index] = ""
            continue
        stripped = line.lstrip()
        if fence:
            fence = "" if stripped.startswith(fence) and not stripped.strip(fence[0] + " ") else fence
            lines[index] = ""
            continue
        if not comment and (mark := re.match(r"(`{3,}|~{3,})", stripped)) and mark[0] not in stripped[len(mark[0]) :]:
            fence, lines[index] = mark[0], ""
            continue
        lines[index], comment = _without_comments(line, comment)
    return lines


def _without_comments(line: str, inside: bool) -> tuple[str, bool]:
    kept, position = [], 0
    while position < len(line):
        mark = line.find("-->" if inside else "<!--", position)
        if mark < 0:
            if not inside:
                kept.append(line[position:])
            return "".join(kept), inside
        if not inside:
            kept.append(line[position:mark])
        position, inside = mark + (3 if inside else 4), not inside
    return "".join(kept), inside


def references_of(lines: list[str]):
    for index, line in enumerate(lines):
        if match := re.fullmatch(r" {0,3}\[([^\[\]]{1,100})\]:\s+<?(\S+?)>?(\s+[\"'(].*)?\s*", line):
            yield match[1].lower(), match[2]
            lines[index] = ""


# --- blocks -----------------------------------------------------------------------------------------------------

_ATX = re.compile(r" {0,3}(#{1,6})(?:\s+(.*))?")
_BULLET = re.compile(r"(\s*)([-*+]|\d{1,9}[.)])(?:\s+(.*))?")
RULE = re.compile(r" {0,3}([-*_])\s*(?:\1\s*){2,}")


def blocks_of(lines: list[str], document: Document):
    index, stack, previous = 0, [], None  # the bullets that are open, and the block before
    parents: list[tuple[int, int]] = []  # (level, index) of the headings that are open
    blank = True
    while index < len(lines):
        line, number = lines[index], index + 1
        index += 1
        if not line.strip():
            blank = True
            continue
        match = _ATX.fullmatch(line) or (blank and re.fullmatch(r"(#{2,6})([^#\s].*)", line))
        setext = _setext(lines, index - 1) if blank and not match else 0
        if match or setext:
            level = setext or len(match[1])
            text = line if setext else match[2] or ""
            if not setext and match.re is not _ATX:
                document.say(number, "markdown", f"no space behind {match[1]}", f"write {match[1]} {shown(text)[1:-1]}")
            text = clean(unmarked("".join(part.text for part in parts(re.sub(r" #+$", "", " ".join(text.split()))))))
            while parents and parents[-1][0] >= level:
                parents.pop()
            heading = Heading(number, level, text, parents[-1][1] if parents else None)
            parents.append((level, len(document.headings)))
            document.headings.append(heading)
            index += bool(setext)
            stack, previous = [], heading
            yield heading
        elif RULE.fullmatch(line):
            stack, previous = [], None
        elif "|" in line and index < len(lines) and _is_delimiter(lines[index]):
            previous = Table(number, _cells(line), [])
            stack = []
            index += 1
            while index < len(lines) and "|" in lines[index] and not _ATX.fullmatch(lines[index]):
                previous.rows.append(Row(index + 1, _cells(lines[index])))
                index += 1
            yield previous
        elif match := _BULLET.fullmatch(line):
            indent = len(match[1])
            while stack and stack[-1].indent >= indent:
                stack.pop()
            bullet = Bullet(number, indent, match[3] or "")
            if stack:
                stack[-1].children.append(bullet)
            elif indent < 4 or not isinstance(previous, Paragraph):
                yield bullet
            else:
                bullet.indent = indent  # below an indented note: belongs to it
            if stack or indent < 4 or not isinstance(previous, Paragraph):
                stack.append(bullet)
                previous = bullet
        elif stack and (not blank or len(line) - len(line.lstrip()) > stack[0].indent):
            while len(stack) > 1 and blank and len(line) - len(line.lstrip()) <= stack[-1].indent:
                stack.pop()
            stack[-1].text += "\n" + line.strip()
        elif isinstance(previous, Paragraph) and not blank:
            previous.text += "\n" + line.strip()
        else:
            stack, previous = [], Paragraph(number, line.strip())
            yield previous
        blank = False


def _setext(lines: list[str], index: int) -> int:
    """The level of the heading that `===` or `---` below a line makes."""
    below = lines[index + 1].strip() if index + 1 < len(lines) else ""
    if len(below) < 3 or set(below) not in ({"="}, {"-"}) or _BULLET.fullmatch(lines[index]) or "|" in lines[index]:
        return 0
    return 1 if below[0] == "=" else 2


def _is_delimiter(line: str) -> bool:
    cells = _cells(line)
    return "|" in line and all(re.fullmatch(r":?-+:?", cell) for cell in cells)


def _cells(line: str) -> list[str]:
    line = CODE_SPAN.sub(lambda m: m[0].translate(HIDDEN), line.strip())
    cells = re.split(r"(?<!\\)\|", line)
    cells = cells[1:] if not cells[0].strip() else cells
    cells = cells[:-1] if cells and not cells[-1].strip() and line.endswith("|") else cells
    return [cell.strip().replace("\\|", "|") for cell in cells]
