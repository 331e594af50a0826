"""`python -m tools export --format json|bibtex [-o FILE]`: the whole catalog as one document.

JSON holds the lists papers, methods, codebases, resources, reading_lists, taxonomy and venues. Each record has its `id`
and every field of its type (null or empty where nothing is recorded); a method also has its `chapter` and its
`implementation`, "module:function" or null.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tools.catalog import TABLES, Catalog, CatalogError, load_from
from tools.records import KINDS


def add_parser(commands) -> None:
    parser = commands.add_parser("export", help="write the catalog as JSON or BibTeX")
    parser.add_argument("--format", choices=("json", "bibtex"), required=True)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="standard output if left out")
    parser.add_argument("--catalog", type=Path, default=Path("catalog"), metavar="DIR")
    parser.set_defaults(run=run)


def run(args) -> int:
    catalog = load_from(args.catalog)
    if catalog.problems:
        for problem in sorted(catalog.problems):
            print(problem, file=sys.stderr)
        raise CatalogError("nothing exported: mend these records first (`python -m tools check` finds the rest)")
    text = json_document(catalog) if args.format == "json" else bibtex_document(catalog)
    if args.output is None:
        sys.stdout.write(text)
        return 0
    try:
        args.output.write_bytes(text.encode("utf-8"))
    except OSError as error:
        raise CatalogError(f"{args.output}: cannot be written ({error.strerror}); name another file with -o") from None
    return 0


def json_document(catalog: Catalog) -> str:
    document = {}
    for kind in [*KINDS, *TABLES]:
        document[kind] = [
            {"id": id} | _computed(catalog, kind, id) | record.model_dump(mode="json")
            for id, record in sorted(getattr(catalog, kind).items())
        ]
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _computed(catalog: Catalog, kind: str, id: str) -> dict[str, str | None]:
    if kind != "methods":
        return {}
    return {"chapter": catalog.chapters[id], "implementation": catalog.implementation(id)}


def bibtex_document(catalog: Catalog) -> str:
    from tools.bibtex import bibliography  # its parser takes longer to import than the JSON to write

    return bibliography((paper, catalog.venues.get(paper.venue)) for _, paper in sorted(catalog.papers.items()))
