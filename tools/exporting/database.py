"""SQLite: one table a kind, and `links`, whose rows join two records that both exist.

    SELECT p.year, p.title FROM links l JOIN papers p ON p.id = l.paper WHERE l.method = 'ties_merging';
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from tools.catalog import Catalog, CatalogError

ENDS = ("paper", "method", "related", "topic", "codebase", "resource", "list")
SCHEMA = """
CREATE TABLE venues (id TEXT PRIMARY KEY, name TEXT NOT NULL, kind TEXT NOT NULL, short TEXT NOT NULL, url TEXT);
CREATE TABLE taxonomy (
  id TEXT PRIMARY KEY, parent TEXT REFERENCES taxonomy, name TEXT NOT NULL, summary TEXT NOT NULL, excludes TEXT NOT NULL,
  introduced_by TEXT NOT NULL REFERENCES papers);
CREATE TABLE papers (
  id TEXT PRIMARY KEY, title TEXT NOT NULL, year INTEGER NOT NULL, venue TEXT NOT NULL REFERENCES venues, "where" TEXT,
  kind TEXT NOT NULL, arxiv TEXT, doi TEXT, openreview TEXT, url TEXT, summary TEXT NOT NULL, note TEXT);
CREATE TABLE authors (
  paper TEXT NOT NULL REFERENCES papers, position INTEGER NOT NULL, name TEXT NOT NULL, PRIMARY KEY (paper, position));
CREATE TABLE code (paper TEXT NOT NULL REFERENCES papers, url TEXT NOT NULL, official INTEGER NOT NULL, note TEXT);
CREATE TABLE methods (
  id TEXT PRIMARY KEY, chapter TEXT NOT NULL, implementation TEXT, name TEXT NOT NULL, summary TEXT NOT NULL,
  introduced_by TEXT REFERENCES papers, base INTEGER NOT NULL, data TEXT NOT NULL, gradients INTEGER NOT NULL,
  training INTEGER NOT NULL, same_init INTEGER NOT NULL, same_architecture INTEGER NOT NULL, output TEXT NOT NULL,
  inference TEXT NOT NULL, note TEXT);
CREATE TABLE codebases (
  id TEXT PRIMARY KEY, name TEXT NOT NULL, url TEXT NOT NULL, kind TEXT NOT NULL, summary TEXT NOT NULL, note TEXT);
CREATE TABLE resources (
  id TEXT PRIMARY KEY, name TEXT NOT NULL, url TEXT NOT NULL, kind TEXT NOT NULL, year INTEGER, summary TEXT NOT NULL, note TEXT);
CREATE TABLE reading_lists (
  id TEXT PRIMARY KEY, title TEXT NOT NULL, source TEXT NOT NULL, url TEXT, summary TEXT NOT NULL);
CREATE TABLE links (
  relation TEXT NOT NULL, paper TEXT REFERENCES papers, method TEXT REFERENCES methods, related TEXT REFERENCES methods,
  topic TEXT REFERENCES taxonomy, codebase TEXT REFERENCES codebases, resource TEXT REFERENCES resources,
  list TEXT REFERENCES reading_lists, note TEXT,
  CHECK ((paper IS NOT NULL) + (method IS NOT NULL) + (related IS NOT NULL) + (topic IS NOT NULL) + (codebase IS NOT NULL)
    + (resource IS NOT NULL) + (list IS NOT NULL) = 2));
CREATE INDEX links_by_paper ON links (paper);
CREATE INDEX links_by_method ON links (method);
CREATE INDEX links_by_topic ON links (topic);
"""


def database(catalog: Catalog) -> bytes:
    """The bytes of the file; every reference is checked as it goes in."""
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.executescript(SCHEMA)
        for table, row in _rows(catalog):
            columns = ", ".join(f'"{name}"' for name in row)
            marks = ", ".join("?" * len(row))
            try:
                connection.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", list(row.values()))
            except sqlite3.IntegrityError:
                named = row.get("id") or next(value for name, value in row.items() if name in ENDS)
                raise CatalogError(f"{named} names a record that is not there; `python -m tools check` says which") from None
        connection.commit()
        return connection.serialize()
    finally:
        connection.close()


def _rows(c: Catalog) -> Iterator[tuple[str, dict[str, object]]]:
    """Table and row, in an order in which whatever a row names is there already."""
    for kind in ("venues", "reading_lists"):
        for id, record in sorted(getattr(c, kind).items()):
            yield kind, {"id": id} | record.model_dump(exclude={"aliases", "sections", "corrections"})
    for id, paper in sorted(c.papers.items()):
        yield "papers", {"id": id} | paper.model_dump(exclude={"aliases", "authors", "taxonomy", "code"})
        for position, name in enumerate(paper.authors, start=1):
            yield "authors", {"paper": id, "position": position, "name": name}
        for code in paper.code:
            yield "code", {"paper": id} | code.model_dump()
    for id, node in sorted(c.taxonomy.items(), key=lambda item: (item[0].count("/"), item[0])):
        yield "taxonomy", {"id": id, "parent": id.rpartition("/")[0] or None} | node.model_dump()
    for id, method in sorted(c.methods.items()):
        facts = method.model_dump(include={"name", "summary", "introduced_by", "note"}) | method.requirements.model_dump()
        yield "methods", {"id": id, "chapter": c.chapters[id], "implementation": c.implementation(id)} | facts
    for kind in ("codebases", "resources"):
        for id, record in sorted(getattr(c, kind).items()):
            yield kind, {"id": id} | record.model_dump(exclude={"authors", "papers", "methods"})
    for relation, ends in _links(c):
        yield "links", {"relation": relation} | ends


def _links(c: Catalog) -> Iterator[tuple[str, dict[str, str | None]]]:
    for id, paper in sorted(c.papers.items()):
        yield from (("in topic", {"paper": id, "topic": node}) for node in paper.taxonomy)
    for id, method in sorted(c.methods.items()):
        yield from (("in topic", {"method": id, "topic": node}) for node in method.taxonomy)
        if method.introduced_by:
            yield "introduced by", {"method": id, "paper": method.introduced_by}
        yield from (("discussed by", {"method": id, "paper": paper}) for paper in method.papers)
        yield from ((link.how, {"method": id, "related": link.method, "note": link.note}) for link in method.related)
    for id, codebase in sorted(c.codebases.items()):
        yield from (("code of", {"codebase": id, "paper": paper}) for paper in codebase.papers)
    for id, resource in sorted(c.resources.items()):
        yield from (("about", {"resource": id, "paper": paper}) for paper in resource.papers)
        yield from (("about", {"resource": id, "method": method}) for method in resource.methods)
    for name, found in (("paper", c.reading_lists_by_paper), ("codebase", c.reading_lists_by_codebase)):
        for id, lists in sorted(found.items()):
            yield from (("listed in", {name: id, "list": reading_list}) for reading_list in lists)
    for id, lists in sorted(c.reading_lists_by_resource.items()):
        yield from (("listed in", {"resource": id, "list": reading_list}) for reading_list in lists)
