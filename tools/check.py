"""`python -m tools check [--catalog DIR] [--against REV]`: read every record, apply every rule, print one line a problem."""

from __future__ import annotations

import sys
from pathlib import Path

from tools import stable
from tools.catalog import Catalog, Problem, load_from
from tools.records import KINDS
from tools.rules import RULES


def add_parser(commands) -> None:
    parser = commands.add_parser("check", help="find what is wrong with the catalog; one line a problem")
    parser.add_argument("--catalog", type=Path, default=Path("catalog"), metavar="DIR")
    parser.add_argument("--against", metavar="REV", help="also name the ids of a revision that are gone without a redirect")
    parser.set_defaults(run=run)


def run(args) -> int:
    catalog = load_from(args.catalog)
    problems = check(catalog)
    if args.against is not None:
        problems += stable.gone(catalog, args.against)
    for problem in problems:
        print(problem)
    if problems:
        files = {problem.path for problem in problems}
        print(f"{_count(len(problems), 'problem')} in {_count(len(files), 'file')}", file=sys.stderr)
        return 1
    counts = [_count(len(getattr(catalog, kind)), kind.replace("_", " ").removesuffix("s")) for kind in KINDS]
    counts += [_count(len(catalog.taxonomy), "taxonomy node"), _count(len(catalog.venues), "venue")]
    print(f"{', '.join(counts)}: no problems")
    return 0


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def check(catalog: Catalog) -> list[Problem]:
    """Every problem, by file and line."""
    return sorted({*catalog.problems, *(problem for rule in RULES for problem in rule(catalog))})
