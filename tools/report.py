"""`python -m tools report --before DIR [--catalog DIR]`: what a change does to the catalog, as a comment in Markdown.

For pull requests: counts, every new or changed record as a reader will see it, ids that would be gone, and what `check`
finds. Texts of records are strangers' texts: outside code blocks they are escaped, and they mention nobody.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from tools import escape, stable
from tools.bibtex import bibtex_entry
from tools.catalog import TABLES, Catalog, Problem, load_from
from tools.check import check
from tools.exporting import links
from tools.records import KINDS, Paper

MOST_RECORDS, MOST_PROBLEMS = 25, 50
LIMIT = 60_000  # characters; GitHub takes 65,536


def add_parser(commands) -> None:
    parser = commands.add_parser("report", help="say what a change does to the catalog, as a comment for its pull request")
    parser.add_argument("--before", type=Path, required=True, metavar="DIR", help="the catalog as it was")
    parser.add_argument("--catalog", type=Path, default=Path("catalog"), metavar="DIR")
    parser.set_defaults(run=run)


def run(args) -> int:
    print(report(load_from(args.before), load_from(args.catalog)))
    return 0


def report(before: Catalog, after: Catalog) -> str:
    problems = [*check(after), *stable.lost(stable.ids(before), after, "the base branch")]
    counts = [
        f"| {kind.replace('_', ' ')} | {len(was)} | {len(now)} | {len(now) - len(was):+d} |"
        for kind in [*KINDS, *TABLES]
        if (was := before.ids(kind)) or after.ids(kind)
        for now in [after.ids(kind)]
        if was != now
    ]
    parts = ["## The catalog with this change", _verdict(problems, after.folder)]
    if counts:
        parts.append("\n".join(["| | before | after | |", "| --- | --- | --- | --- |", *counts]))
    parts += list(_records(before, after)) or ["No record is new or changed."]
    text = "\n\n".join(parts)
    if len(text) > LIMIT:
        text = text[:LIMIT].rsplit("\n## ", 1)[0] + "\n\nThe rest is left out: a comment has a limit."
    return text


def _verdict(problems: list[Problem], folder: Path) -> str:
    if not problems:
        return "`python -m tools check` finds nothing wrong. Modules and tests are judged by CI."
    lines = [str(problem).removeprefix(f"{folder.parent}/") for problem in problems[:MOST_PROBLEMS]]
    more = f"\n\nand {len(problems) - MOST_PROBLEMS} more." if len(problems) > MOST_PROBLEMS else ""
    return f"**`python -m tools check` finds {len(problems)} to mend:**\n\n{escape.fence(chr(10).join(lines), 'text')}{more}"


def _records(before: Catalog, after: Catalog):
    changed = [
        (kind, id)
        for (kind, id), source in sorted(after.sources.items())
        if (kind, id) not in before.sources or before.sources[kind, id].text != source.text
    ]
    for kind, id in changed[:MOST_RECORDS]:
        name = f"{kind}/{id}" if kind in KINDS else f"{kind}.yaml"
        now = after.sources[kind, id].text
        if (kind, id) in before.sources:
            was = before.sources[kind, id].text
            diff = "\n".join(list(difflib.unified_diff(was.splitlines(), now.splitlines(), lineterm="", n=2))[2:])
            yield f"### Changed: {plain(name)}\n\n{escape.fence(diff[:8000], 'diff')}"
        elif kind == "papers" and id in after.papers:
            yield f"### New: {plain(name)}\n\n{_paper(after, after.papers[id])}"
        else:
            yield f"### New: {plain(name)}\n\n{escape.fence(now[:8000], 'yaml')}"
    if len(changed) > MOST_RECORDS:
        yield f"and {len(changed) - MOST_RECORDS} more records."


def _paper(catalog: Catalog, paper: Paper) -> str:
    venue = catalog.venues.get(paper.venue)
    topics = [catalog.taxonomy[node].name if node in catalog.taxonomy else node for node in paper.taxonomy]
    code = [f"{item.url} ({'by the authors' if item.official else 'by others'})" for item in paper.code]
    lines = [
        f"**{plain(paper.title)}**",
        plain(", ".join(paper.authors)),
        plain(f"{venue.name if venue else paper.venue}, {paper.year}{', ' + paper.where if paper.where else ''}"),
        plain(paper.summary),
        f"Read: {plain(', '.join(links(paper)) or 'no link')}",
        f"Code: {plain(', '.join(code) or 'none')}",
        f"Kind: {paper.kind}. Topics: {plain(', '.join(topics))}",
    ]
    return "\n\n".join([*lines, escape.fence(bibtex_entry(paper, venue).strip(), "bibtex")])


def plain(text: str) -> str:
    """Escaped for a comment: no markup, nobody mentioned, no issue linked."""
    return re.sub(r"&#(64|35);", r"&#\1;&#8288;", str(escape.text(text)))
