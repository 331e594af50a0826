"""`python -m tools site`: write the generated pages below docs/, before the builder runs.

Only files whose bytes changed are written, so a watching builder stays quick; pages of records that are gone are deleted.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tools.catalog import CatalogError, load
from tools.pages import Pages


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools site", description=__doc__.partition("\n")[0])
    parser.add_argument("--catalog", type=Path, default=Path("catalog"), help="the folder of records (default: catalog)")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="the docs folder to write to (default: docs)")
    arguments = parser.parse_args(argv)
    folder = arguments.catalog.resolve()
    catalog = load(folder.parent, folder.name)
    if catalog.problems:
        print(f"{len(catalog.problems)} problems in the catalog; what they touch is left out: run `python -m tools check`", file=sys.stderr)
    written, deleted, total = write(Pages(catalog), arguments.docs)
    print(f"{total} pages: {written} written, {deleted} deleted, {total - written} unchanged")
    return 0


def write(pages: Pages, docs: Path) -> tuple[int, int, int]:
    """Bring the generated files of a docs folder up to date: how many were written, deleted, and exist."""
    made: dict[str, bytes] = {}
    for path, text in pages.all():
        if path in made:
            raise CatalogError(f"two records claim the page {path}; rename one")
        made[path] = text.encode("utf-8")
    written = 0
    for path, data in made.items():
        file = docs / path
        if not (file.is_file() and file.read_bytes() == data):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
            written += 1
    stale = [file for file in sorted((docs / "catalog").rglob("*")) if file.is_file() and file.relative_to(docs).as_posix() not in made]
    for file in stale:
        file.unlink()
    for folder in sorted((docs / "catalog").rglob("*"), reverse=True):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    return written, len(stale), len(made)


if __name__ == "__main__":
    sys.exit(main())
