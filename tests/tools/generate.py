"""Made-up catalogs of any size, deterministic: for the test of growth and for the benchmark."""

from __future__ import annotations

import random
from pathlib import Path

from tools.fmt import canonical

SYLLABLES = [a + b for a in "b c d f g k l m n p r s t v z br cl st tr".split() for b in "a e i o u an er in ol us".split()]
VENUES = {
    "arxiv": {"name": "arXiv", "kind": "preprint server", "short": "arXiv"},
    "neurips": {"name": "Conference on Neural Information Processing Systems", "kind": "conference", "short": "NeurIPS"},
    "tmlr": {"name": "Transactions on Machine Learning Research", "kind": "journal", "short": "TMLR"},
}


def make_catalog(folder: Path, papers: int, seed: int = 0) -> Path:
    """Write `papers` sound papers with a taxonomy that grows with them; returns the folder."""
    draw = random.Random(seed)
    nodes = [f"topic-{number}" for number in range(max(1, papers // 50))]
    taxonomy = {}
    _write(folder / "venues.yaml", canonical("venues", VENUES))
    for number in range(papers):
        year = 2015 + number % 10
        id = f"{_word(draw)}{year}{_word(draw)}{number}"
        record = {
            "title": f"{_word(draw).title()}: " + " ".join(_word(draw) for _ in range(draw.randint(6, 11))),
            "authors": [f"{_word(draw).title()} {_word(draw).title()}" for _ in range(draw.randint(2, 7))],
            "year": year,
            "venue": draw.choice(list(VENUES)),
            "kind": "method",
            "arxiv": f"{year % 100}{number % 12 + 1:02}.{number:05}",
            "taxonomy": [nodes[number % len(nodes)]],
            "code": [{"url": f"https://github.com/{_word(draw)}/{_word(draw)}-{number}", "official": True}],
            "summary": " ".join(_word(draw) for _ in range(25)).capitalize() + ".",
        }
        _write(folder / "papers" / str(year) / f"{id}.yaml", canonical("papers", record))
        if number < len(nodes):
            node = nodes[number]
            about = {"summary": f"What is on {node}.", "excludes": f"Not what is beside {node}.", "introduced_by": id}
            taxonomy[node] = {"name": node} | about
    _write(folder / "taxonomy.yaml", canonical("taxonomy", taxonomy))
    return folder


def _word(draw: random.Random) -> str:
    return "".join(draw.choice(SYLLABLES) for _ in range(draw.randint(2, 4)))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
