"""`python -m tools new KIND ID`: start a record from a template. A method is a record, a module and a test.

Nothing is ever overwritten: a file that exists is kept and said so. Every blank is marked TODO, and `check` finds it.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import jinja2

from tools import records
from tools.catalog import CatalogError
from tools.rules import ID_FORMS, is_id

TEMPLATES = Path(__file__).parent / "templates" / "scaffold"
KIND_OF = {
    "paper": "papers",
    "method": "methods",
    "codebase": "codebases",
    "resource": "resources",
    "reading-list": "reading_lists",
}


def add_parser(commands) -> None:
    parser = commands.add_parser("new", help="start a record from a template")
    parser.add_argument("kind", choices=tuple(KIND_OF))
    parser.add_argument("id", metavar="ID", help="yadav2023ties; for a method its chapter too: task_vectors/ties_merging")
    parser.add_argument("--catalog", type=Path, default=Path("catalog"), metavar="DIR")
    parser.set_defaults(run=run)


def run(args) -> int:
    home: Path = args.catalog.resolve() if args.catalog.name in ("", "..") else args.catalog
    if not home.is_dir():
        raise CatalogError(f"{home}: no such folder; name the catalog with --catalog DIR or run from the project's root")
    files = plan(args.kind, args.id, home)
    if all(path.exists() for path in files):
        raise CatalogError(f"{next(iter(files))}: exists already; nothing written")
    for path, text in files.items():
        if path.exists():
            print(f"kept  {path}: exists already")
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "x", encoding="utf-8", newline="\n") as file:
                file.write(text)
        except OSError as error:
            raise CatalogError(f"{path}: cannot be written ({error.strerror}); check the folder and its permissions") from None
        print(f"wrote {path}")
    print("fill in every TODO, then run `python -m tools fmt` and `python -m tools check`", file=sys.stderr)
    return 0


def plan(kind: str, id: str, home: Path) -> dict[Path, str]:
    """Path -> text of every file that the new thing consists of."""
    chapter, _, name = id.rpartition("/")
    if kind == "method":
        if chapter not in records.CHAPTERS:
            raise CatalogError(f"{id}: write chapter/id; the chapters are {', '.join(records.CHAPTERS)}")
    elif chapter:
        raise CatalogError(f"{id}: an id has no slash; write {name}")
    if not is_id(KIND_OF[kind], name):
        form = ID_FORMS.get(KIND_OF[kind], "lower-case words with hyphens: fusion-bench")
        raise CatalogError(f"{id!r} is not an id; write {form}")

    if kind == "paper":
        year = re.search(r"\d{4}", name)[0]
        return {home / "papers" / year / f"{name}.yaml": _filled("paper.yaml", year=year)}
    if kind == "method":
        root = home.parent
        words = {"id": name, "chapter": chapter}
        return {
            home / "methods" / chapter / f"{name}.yaml": _filled("method.yaml", **words),
            root / "reference_impls" / chapter / f"{name}.py": _filled("method.py", **words),
            root / "tests" / "methods" / chapter / f"test_{name}.py": _filled("test_method.py", **words),
        }
    template = f"{kind.replace('-', '_')}.yaml"
    return {home / KIND_OF[kind] / f"{name}.yaml": _filled(template)}


def _filled(template: str, **words: str) -> str:
    source = (TEMPLATES / f"{template}.j2").read_text(encoding="utf-8")
    return jinja2.Template(source, keep_trailing_newline=True, undefined=jinja2.StrictUndefined).render(words)
