"""Markdown: the papers as a list by topic, and llms.txt, the map of the site for language models (llmstxt.org)."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

from tools.catalog import Catalog
from tools.exporting import SAFE_LINK, line, links
from tools.records import CHAPTERS, Paper

ABOUT = (
    "How trained models are combined: merged, aligned, routed, ensembled, distilled. "
    "Reference implementations in PyTorch and the literature as checked facts."
)


def markdown_list(catalog: Catalog, papers: list[Paper]) -> str:
    """Each paper once, under the first of its topics, newest first: title, venue and year, code."""
    at: dict[str, list[Paper]] = defaultdict(list)
    for paper in sorted(papers, key=lambda paper: (-paper.year, paper.title.casefold(), paper.id)):
        at[paper.taxonomy[0]].append(paper)
    kept = {"/".join(node.split("/")[:depth]) for node in at for depth in range(1, node.count("/") + 2)}
    out = ["# Model Fusion Atlas: papers", f"> {ABOUT}"]
    for node in _in_order(catalog, ""):
        if node in kept:
            out.append(f"{'#' * (node.count('/') + 2)} {escaped(catalog.taxonomy[node].name)}")
            out.append("\n".join(_entry(catalog, paper) for paper in at.pop(node, [])))
    for node, others in sorted(at.items()):  # a topic that the taxonomy does not have
        out += [f"## {escaped(node)}", "\n".join(_entry(catalog, paper) for paper in others)]
    return "\n\n".join(part for part in out if part) + "\n"


def _in_order(catalog: Catalog, node: str) -> Iterator[str]:
    for child in catalog.children.get(node, []):
        yield child
        yield from _in_order(catalog, child)


def _entry(catalog: Catalog, paper: Paper) -> str:
    venue = catalog.venues.get(paper.venue)
    where = f"*{escaped(venue.short if venue else paper.venue)} {paper.year}*"
    parts = [f"{_link(paper.title, next(iter(links(paper)), None))}. {where}"]
    safe = [code for code in paper.code if SAFE_LINK.fullmatch(code.url)]
    parts += [_link("code" if code.official else "code by others", code.url) for code in safe]
    return f"- {' · '.join(parts)}"


def llms_txt(catalog: Catalog) -> str:
    """Links are relative to the root of the site."""
    c = catalog
    counts = f"{len(c.methods)} methods, {len(c.papers)} papers, {len(c.taxonomy)} topics."
    pages = [
        _page("Which method when", "guide/which-method/", "choose a method by what is at hand"),
        _page("Methods", "catalog/methods/", "all methods by chapter, with what each needs"),
        _page("Papers", "catalog/papers/", "all papers, newest first"),
        _page("Topics", "catalog/taxonomy/", "the tree of topics"),
        _page("Downloads", "catalog/downloads/", "the catalog as BibTeX, CSL-JSON, RIS, CSV, JSON and Atom"),
    ]
    sections = {"Start": pages}
    for chapter in CHAPTERS:
        methods = [(id, c.methods[id]) for id in c.methods_by_chapter.get(chapter, [])]
        name = chapter.replace("_", " ").capitalize()
        sections[f"Methods: {name}"] = [_page(method.name, f"catalog/methods/{id}/", method.summary) for id, method in methods]
    sections["Topics"] = [_page(node.name, f"catalog/taxonomy/{id}/", node.summary) for id, node in c.taxonomy.items()]
    lists = sorted(c.reading_lists.items())
    sections["Reading lists"] = [_page(found.title, f"catalog/reading_lists/{id}/", found.summary) for id, found in lists]
    codebases = sorted(c.codebases.items())
    sections["Code"] = [_page(found.name, f"catalog/codebases/{id}/", found.summary) for id, found in codebases]
    papers = sorted(c.papers.items(), key=lambda item: (-item[1].year, item[0]))
    sections["Optional"] = [_page(paper.title, f"catalog/papers/{id}/", paper.summary) for id, paper in papers]
    out = ["# Model Fusion Atlas", f"> {ABOUT}", counts]
    for heading, found in sections.items():
        if found:
            out += [f"## {heading}", "\n".join(found)]
    return "\n\n".join(out) + "\n"


def _page(name: str, path: str, about: str) -> str:
    return f"- {_link(name, path)}: {escaped(about)}"


def _link(label: str, target: str | None) -> str:
    if target is None:
        return escaped(label)
    return f"[{escaped(label)}]({target.replace('(', '%28').replace(')', '%29')})"


def escaped(text: str) -> str:
    """Text that no reader of Markdown takes for markup, with no more backslashes than that needs.

    Example:
        >>> escaped("A [b](c) <d> *e*: https://f.g")
        'A \\\\[b\\\\](c) \\\\<d\\\\> \\\\*e\\\\*: https\\\\://f.g'
    """
    text = re.sub(r"[\\`*_\[\]<>&|~$@{}#]", r"\\\g<0>", line(text))
    text = re.sub(r"^(\d*)([-+.)])", r"\1\\\2", text)  # "1. x" and "- x" open a list
    text = re.sub(r":(?=//)", r"\\:", text)  # bare addresses become links in GitHub's Markdown
    return re.sub(r"(?<=\bwww)\.", r"\\.", text, flags=re.IGNORECASE)
