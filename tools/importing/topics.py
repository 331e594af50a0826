"""Headings of a list -> nodes of the taxonomy: by the headings of the catalog's reading lists, then by words."""

from __future__ import annotations

import re
from collections import defaultdict

from tools.catalog import Catalog
from tools.importing.items import Document
from tools.titles import stem, words

MOST = 3  # suggestions for a heading
EMPTY = frozenset(
    "a after an and as at based before by else for from general in into is it list misc new of old on or other others "
    "paper papers recent something the to with method methods model models".split()
)


class Topics:
    def __init__(self, catalog: Catalog):
        self.table: dict[str, list[str]] = defaultdict(list)
        for reading_list in catalog.reading_lists.values():
            for section in reading_list.sections:
                key = _key(section.heading)
                self.table[key] += [node for node in section.taxonomy if node not in self.table[key]]
        self.nodes: dict[str, tuple[set[str], set[str]]] = {}  # node -> stems of its name and path, of its summary
        for id, node in catalog.taxonomy.items():
            above = catalog.taxonomy.get(id.rpartition("/")[0])
            name = stems(node.name) | stems(id.rpartition("/")[2])
            self.nodes[id] = (name, stems(node.summary) | (stems(above.name) if above else set()))

    def of(self, document: Document, index: int) -> tuple[list[str], bool]:
        """(nodes, sure) for a heading; one that says nothing itself, such as a year, has those above it."""
        heading = document.headings[index]
        nodes, sure = self.suggest(heading.text)
        title = heading.parent == 0 and document.headings[0].level == 1  # of the whole list
        if not nodes and heading.parent is not None and not title:
            nodes, _ = self.of(document, heading.parent)
            sure = False
        return nodes, sure

    def suggest(self, heading: str) -> tuple[list[str], bool]:
        """(nodes, whether they are sure): the table's where a list has this heading, else the nearest by words."""
        now = stems(heading)
        if not now:
            return [], False  # "Others", "2024"
        if nodes := self.table.get(_key(heading)):
            return nodes, True
        scores: dict[str, float] = {}
        for id, (name, about) in self.nodes.items():
            hit = len(now & name)
            if hit or (len(now) > 1 and now <= about):
                scores[id] = hit / len(now | name) + 0.3 * len(now & about) / len(now)
        best = max(scores.values(), default=0)
        nodes = sorted((id for id in scores if scores[id] >= max(0.25, best - 0.1)), key=lambda id: (-scores[id], id))
        return nodes[:MOST], best >= 1


def _key(heading: str) -> str:
    return " ".join(words(re.sub(r"^[\d.]+\s", "", heading)))


def stems(text: str) -> set[str]:
    return {stem(word) for word in words(text.replace("-", " ")) if word not in EMPTY and not word.isdigit()}
