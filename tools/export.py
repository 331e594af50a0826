"""`python -m tools export --format FORMAT [--list ID] [-o FILE]`: the catalog as one document.

The formats of papers (bibtex, csl-json, ris, csv, atom, markdown) hold all of them, or with `--list` those of one reading
list, in its order where the format has no order of its own. The others (json, json-schema, sqlite, llms) hold everything.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from tools.catalog import Catalog, CatalogError, load_from
from tools.records import Paper, nearest

PAPERS = {  # format -> module:function(catalog, papers), imported only when asked for
    "bibtex": "tools.export:bibtex",
    "csl-json": "tools.exporting.csl:csl_json",
    "ris": "tools.exporting.ris:ris",
    "csv": "tools.exporting.table:csv_table",
    "atom": "tools.exporting.feed:atom",
    "markdown": "tools.exporting.markdown:markdown_list",
}
WHOLE = {  # format -> module:function(catalog)
    "json": "tools.exporting.document:json_document",
    "json-schema": "tools.exporting.document:json_schema",
    "sqlite": "tools.exporting.database:database",
    "llms": "tools.exporting.markdown:llms_txt",
}


def add_parser(commands) -> None:
    parser = commands.add_parser("export", help="write the catalog as JSON, BibTeX, CSV, SQLite and others")
    parser.add_argument("--format", choices=(*WHOLE, *PAPERS), required=True)
    parser.add_argument("--list", metavar="ID", help=f"only the papers of this reading list ({', '.join(PAPERS)})")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="standard output if left out; sqlite needs it")
    parser.add_argument("--catalog", type=Path, default=Path("catalog"), metavar="DIR")
    parser.set_defaults(run=run)


def run(args) -> int:
    if args.format == "sqlite" and args.output is None:
        raise CatalogError("a database is a file; name one with -o")
    if args.list is not None and args.format in WHOLE:
        raise CatalogError(f"--list chooses papers, and {args.format} holds the whole catalog; use it with {', '.join(PAPERS)}")
    catalog = load_from(args.catalog)
    if catalog.problems:
        for problem in sorted(catalog.problems):
            print(problem, file=sys.stderr)
        raise CatalogError("nothing exported: mend these records first (`python -m tools check` finds the rest)")
    data = export(catalog, args.format, args.list)
    if args.output is None:
        sys.stdout.write(data)
        return 0
    try:
        args.output.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8"))
    except OSError as error:
        raise CatalogError(f"{args.output}: cannot be written ({error.strerror}); name another file with -o") from None
    return 0


def export(catalog: Catalog, format: str, reading_list: str | None = None) -> str | bytes:
    """The document in a format; bytes only for a database."""
    module, _, function = (PAPERS | WHOLE)[format].partition(":")
    write = getattr(import_module(module), function)
    return write(catalog) if format in WHOLE else write(catalog, chosen(catalog, reading_list))


def chosen(catalog: Catalog, reading_list: str | None) -> list[Paper]:
    """All papers by id, or those of a reading list in its order, each once."""
    if reading_list is None:
        return [paper for _, paper in sorted(catalog.papers.items())]
    if reading_list not in catalog.reading_lists:
        known = nearest(reading_list, catalog.reading_lists)
        hint = f"did you mean {known!r}?" if known else f"there are {', '.join(sorted(catalog.reading_lists)) or 'none'}"
        raise CatalogError(f"no reading list {reading_list!r}; {hint}")
    sections = catalog.reading_lists[reading_list].sections
    ids = dict.fromkeys(entry.paper for section in sections for entry in section.entries)
    return [catalog.papers[id] for id in ids if id in catalog.papers]


def bibtex(catalog: Catalog, papers: list[Paper]) -> str:
    from tools.bibtex import bibliography  # its parser takes longer to import than all else here

    return bibliography((paper, catalog.venues.get(paper.venue)) for paper in papers)
