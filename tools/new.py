"""`python -m tools new KIND ID`: start a record from a template. A method is a record, a module and a test.

A paper can be named by an arXiv id, DOI, OpenReview id, ACL Anthology id, a link to one of these, or its title: then public
databases are asked (`tools.lookup`), and only what they don't say is left blank. `--bibtex FILE` does it without a network.
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
    parser.add_argument(
        "id",
        nargs="?",
        metavar="ID",
        help="yadav2023ties; for a method its chapter too: task_vectors/ties_merging; "
        "for a paper also an arXiv id, DOI, OpenReview or ACL Anthology id, a link, or the title",
    )
    parser.add_argument("--bibtex", type=Path, metavar="FILE", help="a paper from its BibTeX entry, without a network")
    parser.add_argument("--id", dest="name", metavar="ID", help="a paper's id, instead of the one that is made from it")
    parser.add_argument("--prefer", metavar="SOURCE", help="believe this source where two disagree about a paper: DBLP")
    parser.add_argument("--catalog", type=Path, default=Path("catalog"), metavar="DIR")
    parser.set_defaults(run=run)


def run(args) -> int:
    home: Path = args.catalog.resolve() if args.catalog.name in ("", "..") else args.catalog
    if not home.is_dir():
        raise CatalogError(f"{home}: no such folder; name the catalog with --catalog DIR or run from the project's root")
    if (looked_up := _looked_up(args, home)) is not None:
        return looked_up
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


def _looked_up(args, home: Path) -> int | None:
    """The exit code of a paper that is made from a file or from the network; None for a template."""
    if args.kind != "paper" and (args.bibtex or args.name or args.prefer):
        raise CatalogError("--bibtex, --id and --prefer are for papers")
    if args.bibtex and args.prefer:
        raise CatalogError("--prefer chooses between sources, and a BibTeX file is one")
    if args.bibtex and args.id is None:
        from tools.lookup import paper

        return paper.from_bibtex(args.bibtex, home, args.name)
    if args.id is None or args.bibtex:
        raise CatalogError("give one ID" + (", or --bibtex FILE" if args.kind == "paper" else ""))
    if args.kind != "paper" or is_id("papers", args.id):
        if args.name or args.prefer:
            raise CatalogError(f"{args.id} starts a template; --id and --prefer are for papers that are looked up")
        return None
    from tools.lookup import ask, paper  # only here: they need the network's libraries

    wanted = ask.understood(args.id)
    if wanted:
        return paper.from_network(wanted, home, args.name, args.prefer)
    if "://" in args.id:
        raise CatalogError(f"{args.id}: no link to arXiv, OpenReview, the ACL Anthology or a DOI; give one of these or the title")
    return None


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
        or_else = ", or an arXiv id, DOI, OpenReview or ACL Anthology id, or a title" if kind == "paper" else ""
        raise CatalogError(f"{id!r} is not an id; write {form}{or_else}")

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
