"""Plain text that no language of a page takes for markup; standard library only, as the drawings in the browser need it too."""

from __future__ import annotations

import re

_ACTIVE = "&<>\"'`\\{}[]()_*#:|~^=$!@+%"
INVISIBLE = [*range(0x20), 0x7F, *range(0x200B, 0x2010), *range(0x2028, 0x202F), *range(0x2066, 0x206A), 0xFEFF]
REFERENCES = {ord(c): f"&#{ord(c)};" for c in _ACTIVE}
_PLAIN = REFERENCES | dict.fromkeys(INVISIBLE, " ")
_BLOCK_START = re.compile(r"^(\d*)([.-])")  # "1. x" and "- x" open a list at the start of a line


def inert(value: object) -> str:
    """One line, in which every character that is active in HTML, Markdown or Jinja is a numeric reference.

    Example:
        >>> inert("- [a](b)")
        '&#45; &#91;a&#93;&#40;b&#41;'
    """
    line = " ".join(str(value).translate(_PLAIN).split())
    return _BLOCK_START.sub(lambda m: f"{m[1]}&#{ord(m[2])};", line)
