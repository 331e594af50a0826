"""Topics of a new paper: those of the records whose words are nearest, rare words counting most (TF-IDF)."""

from __future__ import annotations

import math
from collections import Counter

from tools.catalog import Catalog
from tools.importing.topics import stems

NEIGHBOURS = 5
MOST = 3  # topics


def topics(catalog: Catalog, title: str, about: str = "", leave_out: str | None = None) -> tuple[list[str], list[str]]:
    """(nodes, the papers they come from), best first; none where no record shares a word."""
    bags = {id: stems(f"{paper.title} {paper.summary}") for id, paper in catalog.papers.items() if id != leave_out}
    seen = Counter(stem for bag in bags.values() for stem in bag)
    weight = {stem: math.log((1 + len(bags)) / (1 + count)) for stem, count in seen.items()}
    now = stems(f"{title} {about}")

    def nearness(id: str) -> float:
        size = math.sqrt(sum(weight[stem] ** 2 for stem in bags[id])) or 1.0
        return sum(weight[stem] ** 2 for stem in now & bags[id]) / size

    near = sorted(((nearness(id), id) for id in bags), key=lambda pair: (-pair[0], pair[1]))[:NEIGHBOURS]
    scores: Counter[str] = Counter()
    for score, id in near:
        for node in catalog.papers[id].taxonomy:
            scores[node] += score
    best = max(scores.values(), default=0)
    nodes = [node for node, score in sorted(scores.items(), key=lambda pair: (-pair[1], pair[0])) if score > 0.3 * best > 0]
    return nodes[:MOST], [id for score, id in near if score > 0]
