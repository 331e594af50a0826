"""What goes wrong with a checkpoint, said in one line."""

from __future__ import annotations


class CheckpointError(ValueError):
    """A file, configuration or request that can't be used: one line that names file and tensor, and says what is needed."""

    def __init__(self, message: str) -> None:
        super().__init__("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message))


def quoted(name: object) -> str:
    """Return a name as it stands in a message: in quotes, escaped, and cut where it is absurdly long.

    Example:
        >>> quoted("a\\nb"), len(quoted("x" * 1000))
        ("'a\\\\nb'", 123)
    """
    text = repr(name)
    return text if len(text) <= 120 else text[:120] + "..."
