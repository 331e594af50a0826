"""`python -m tools new paper ID`: one record from what public databases say, or from a BibTeX file without a network."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tools import fmt
from tools.catalog import BLANK, Catalog, CatalogError, load_from
from tools.importing import text_of
from tools.importing.draft import Ids, paper_id
from tools.importing.items import Item
from tools.importing.match import Index
from tools.lookup import anthology
from tools.lookup.agree import Agreement
from tools.lookup.ask import SOURCES, Wanted, ask
from tools.lookup.found import Found
from tools.lookup.http import Web
from tools.lookup.nearest import topics
from tools.rules import ID_FORMS, is_id
from tools.titles import near_same


def from_network(wanted: Wanted, home: Path, id: str | None, prefer: str | None) -> int:
    if prefer and prefer.casefold() not in {source.NAME.casefold() for source in SOURCES}:
        raise CatalogError(f"--prefer {prefer}: no such source; write one of {', '.join(source.NAME for source in SOURCES)}")
    catalog = load_from(home)
    _refuse_known(catalog, [Found("you", wanted.value if wanted.kind == "title" else "", **_ids(wanted))])
    papers = ask(Web(), wanted)
    if not papers:
        raise CatalogError(
            f"no source knows {wanted} or could be asked; nothing written. Without a network: "
            "`python -m tools new paper --bibtex FILE`, or an id of ours for a template"
        )
    return _write(papers, catalog, id, prefer, _ids(wanted))


def from_bibtex(path: Path, home: Path, id: str | None) -> int:
    papers = anthology.from_bibtex(text_of(path), path.name)
    if len(papers) != 1:
        raise CatalogError(f"{path}: {len(papers)} entries with a title, not one; `python -m tools import` reads a list")
    return _write(papers, load_from(home), id, None)


def _ids(wanted: Wanted) -> dict[str, str]:
    if wanted.kind == "acl":
        return {"doi": f"10.18653/v1/{wanted.value.lower()}", "url": f"https://aclanthology.org/{wanted.value}"}
    return {wanted.kind: wanted.value} if wanted.kind != "title" else {}


def known_as(catalog: Catalog, papers: list[Found]) -> str | None:
    """The id of the record that has one of the papers' ids or nearly one of their titles; it may be unfinished."""
    index, titles = Index(catalog), []
    for (kind, id), source in catalog.sources.items():
        if kind == "papers" and id not in catalog.papers and isinstance(source.value, dict):
            for key in ("arxiv", "doi", "openreview"):
                value = str(source.value.get(key))
                index.papers.setdefault(f"{key} {value.lower() if key == 'doi' else value}", id)
            titles.append((id, str(source.value.get("title", ""))))
    for paper in papers:
        for key in ("arxiv", "doi", "openreview"):
            if (value := getattr(paper, key)) and (id := index.papers.get(f"{key} {value}")):
                return id
    now = [("?", paper.title) for paper in papers if paper.title]
    return next((other for id, other in near_same([*index.titles, *titles, *now]) if id == "?"), None)


def _refuse_known(catalog: Catalog, papers: list[Found]) -> None:
    if id := known_as(catalog, papers):
        raise CatalogError(
            f"{catalog.source('papers', id).path} is this paper; nothing written. "
            "Correct it there; `python -m tools refresh` proposes what has changed"
        )


def _write(papers: list[Found], catalog: Catalog, id: str | None, prefer: str | None, ids: dict[str, str] | None = None) -> int:
    _refuse_known(catalog, papers)
    agreement = Agreement(papers, catalog, prefer)
    record = agreement.record
    for key, value in (ids or {}).items():  # what the reader gave, where its own source did not answer
        if key != "url":
            record.setdefault(key, value)
    about = next((paper.about for paper in papers if paper.about), "")
    nodes, near = topics(catalog, papers[0].title, about)
    record["kind"] = f"{BLANK}: method, survey, benchmark, tool, application, empirical or theory"
    record["taxonomy"] = nodes or [f"{BLANK}: an id of catalog/taxonomy.yaml"]
    record["summary"] = f"{BLANK}: one or two sentences in your own words"

    id = _id(id, agreement, papers[0].title, catalog)
    path = catalog.folder / "papers" / re.search(r"\d{4}", id)[0] / f"{id}.yaml"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "x", encoding="utf-8", newline="\n") as file:
            file.write(fmt.canonical("papers", record))
    except FileExistsError:
        raise CatalogError(f"{path}: exists already; nothing written. Choose another id with --id") from None
    except OSError as error:
        raise CatalogError(f"{path}: cannot be written ({error.strerror}); check the folder and its permissions") from None
    print(f"wrote {path}")
    for line in agreement.said:
        print(line, file=sys.stderr)
    sources = list(dict.fromkeys(paper.source for paper in papers))
    confirm = "; confirm each fact in a second one" if len(sources) == 1 else ""
    print(f"sources: {', '.join(sources)}{confirm}", file=sys.stderr)
    if near:
        print(f"topics suggested after {', '.join(near[:3])}: see whether they fit", file=sys.stderr)
    print(f"fill in every {BLANK}, then run `python -m tools fmt` and `python -m tools check`", file=sys.stderr)
    return 0


def _id(id: str | None, agreement: Agreement, title: str, catalog: Catalog) -> str:
    if id is None:
        papers = [*agreement.leading, *agreement.papers]
        who = next((paper.authors[:1] for paper in papers if paper.authors), ())
        year = agreement.record["year"]
        when = year if isinstance(year, int) else next((paper.year for paper in papers if paper.year), None)
        id = Ids(catalog.ids("papers")).free(paper_id(Item(0, title, authors=list(who)), when))
        if {"year", "authors", "title"} & set(agreement.undecided):
            print(f"the id {id} is made from what is in dispute; --id chooses another", file=sys.stderr)
    if not is_id("papers", id):
        raise CatalogError(f"{id!r} is not an id; write {ID_FORMS['papers']} with --id")
    if id in catalog.ids("papers"):
        raise CatalogError(f"{id} is another paper; choose another id with --id")
    return id
