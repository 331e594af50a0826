"""The formats of `python -m tools export`, one module a format, each with a function that returns the whole text.

A function that takes `papers` writes those papers in that order; one that takes only the catalog writes all of it.
"""

from __future__ import annotations

import re

from tools.records import Paper

SAFE_LINK = re.compile(r"https?://[A-Za-z0-9.-]+(:\d+)?(/[^\s<>\"`{}|\\^\[\]]*)?")


def line(text: str) -> str:
    """One line: what cannot be seen becomes a space, runs of spaces one space."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def links(paper: Paper) -> list[str]:
    """Where a paper can be read, the open copy first."""
    found = [
        f"https://arxiv.org/abs/{paper.arxiv}" if paper.arxiv else None,
        f"https://openreview.net/forum?id={paper.openreview}" if paper.openreview else None,
        f"https://doi.org/{paper.doi}" if paper.doi else None,
        paper.url,
    ]
    return [link for link in found if link and SAFE_LINK.fullmatch(link)]
