"""What goes wrong with a checkpoint, said in one line."""

from __future__ import annotations


MAX_LINE = 2_000  # characters


class CheckpointError(ValueError):
    """A file, configuration or request that can't be used: one line that names file and tensor, and says what is needed."""

    def __init__(self, message: str) -> None:
        line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)
        super().__init__(line if len(line) <= MAX_LINE else line[:MAX_LINE] + "...")


def quoted(name: object) -> str:
    """Return a name as it stands in a message: in quotes, escaped, and cut where it is absurdly long.

    Example:
        >>> quoted("a\\nb"), len(quoted("x" * 1000))
        ("'a\\\\nb'", 123)
    """
    try:
        text = repr(name)
    except ValueError:  # a number of thousands of digits
        text = f"<{type(name).__name__} of thousands of digits>"
    return text if len(text) <= 120 else text[:120] + "..."
