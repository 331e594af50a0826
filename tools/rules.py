"""The rules that `python -m tools check` applies: each is a function from the catalog to the problems it finds.

A rule reads a fact where it stands and says at which line to mend it. A new rule is a function here and its name in
`RULES`. Everything takes time in proportion to the number of records.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache

from pydantic import TypeAdapter, ValidationError

from tools import confirmed, fmt, people, records, schema, stable
from tools.catalog import BLANK, OPTIONAL, TABLES, Catalog, Problem, Source, blank, files_below, test_names
from tools.records import KINDS, Line, MethodId, Paper, PaperId, Reference, Slug, TaxonomyId
from tools.titles import near_same, words

# --- files and formats ------------------------------------------------------------------------------------------

PLACES = {  # kind -> the folders above a record, as a pattern, and in words
    "papers": (r"(19|20)\d\d", "catalog/papers/<year>/<id>.yaml"),
    "methods": ("|".join(records.CHAPTERS), "catalog/methods/<chapter>/<id>.yaml"),
    "codebases": ("", "catalog/codebases/<id>.yaml"),
    "resources": ("", "catalog/resources/<id>.yaml"),
    "reading_lists": ("", "catalog/reading_lists/<id>.yaml"),
}
ID_TYPES = {  # a Slug elsewhere
    "papers": PaperId,
    "methods": MethodId,
    "taxonomy": TaxonomyId,
    "people": Line,
    "redirects": Reference,
}
ID_FORMS = {
    "papers": "family name, year and a telling word: yadav2023ties",
    "methods": "lower case with underscores: ties_merging",
    "taxonomy": "lower-case words with hyphens, at most three levels: merging/task-vectors",
    "people": "the name as it stands in records: Given Family",
    "redirects": "kind and id: papers/doe2020old",
}
MADE_BY_HAND = {"README.md", "LICENSE", confirmed.FILE, *(f"{table}.yaml" for table in TABLES)}


@cache
def _id_type(kind: str) -> TypeAdapter:
    return TypeAdapter(ID_TYPES.get(kind, Slug))


def is_id(kind: str, id: str) -> bool:
    try:
        _id_type(kind).validate_python(id)
    except ValidationError:
        return False
    return True


def paths(catalog: Catalog) -> Iterator[Problem]:
    """A record lies where its id says; nothing else lies in the catalog."""
    for table in TABLES:
        if (table, table) not in catalog.sources and table not in OPTIONAL:
            path = catalog.folder / f"{table}.yaml"
            yield Problem(path, 1, "no such file", f"write the {table} there")
    for path in files_below(catalog.folder):
        kind, *folders, name = path.relative_to(catalog.folder).parts if path.parent != catalog.folder else ("", path.name)
        if kind == schema.FOLDER or (not kind and name in MADE_BY_HAND):
            continue
        if kind not in KINDS:
            near = records.nearest(kind or name, [*KINDS, *MADE_BY_HAND])
            mend = f"did you mean {near!r}?" if near else f"records are in {', '.join(KINDS)}"
            yield Problem(path, 1, f"{kind or name!r} has no place in the catalog", mend)
            continue
        pattern, place = PLACES[kind]
        if not name.endswith(".yaml"):
            yield Problem(path, 1, f"{name!r} is not a record", f"name it {place} or move it away")
        elif not re.fullmatch(pattern, "/".join(folders)):
            near = records.nearest("/".join(folders), records.CHAPTERS) if kind == "methods" else None
            yield Problem(path, 1, "in the wrong folder", f"did you mean {near!r}?" if near else f"move it to {place}")
        elif not is_id(kind, path.stem):
            form = ID_FORMS.get(kind, "lower-case words with hyphens: fusion-bench")
            yield Problem(path, 1, f"{path.stem!r} is not an id", f"name the file by {form}")
        elif kind == "papers" and folders[0] != (year := re.search(r"\d{4}", path.stem)[0]):
            yield Problem(path, 1, f"the id {path.stem} says {year}, the folder {folders[0]}", f"move it to papers/{year}/")
    for table in TABLES:
        source = catalog.sources.get((table, table))
        for id in source.value if source and isinstance(source.value, dict) else ():
            if not is_id(table, id):
                form = ID_FORMS.get(table, "lower-case words with hyphens: acl-findings")
                yield Problem(source.path, source.line(id), f"{id!r} is not an id", f"write {form}")


def formats(catalog: Catalog) -> Iterator[Problem]:
    """Every valid record is in the canonical format."""
    broken = {problem.path for problem in catalog.problems}
    for (kind, _), source in catalog.sources.items():
        if source.path in broken:
            continue
        text = fmt.canonical(kind, source.value)
        if text == source.text:
            continue
        comment = fmt.first_comment(source.text)
        if comment:
            yield Problem(source.path, comment, "a comment", "records have none: move it to `note` or delete it")
            continue
        pairs = zip(text.split("\n"), source.text.split("\n"))
        line = next((number for number, (new, old) in enumerate(pairs, 1) if new != old), text.count("\n"))
        yield Problem(source.path, line, "not in the canonical format", "run `python -m tools fmt`")


def schemas(catalog: Catalog) -> Iterator[Problem]:
    """The JSON Schemas are those of the types."""
    folder = catalog.folder / schema.FOLDER
    if not folder.is_dir() and not catalog.has_code:
        return
    for name, text in schema.schemas().items():
        path = folder / name
        if not path.is_file() or path.read_bytes() != text.encode():
            yield Problem(path, 1, "not what tools/records.py says", "run `python -m tools fmt`")


def repetitions(catalog: Catalog) -> Iterator[Problem]:
    """No list says the same thing twice."""
    for source in catalog.sources.values():
        for keys, item in _repeated(source.value, ()):
            yield Problem(source.path, source.line(*keys), f"{_text(item)} stands twice in `{keys[-2]}`", "delete one")


def _repeated(value: object, keys: tuple) -> Iterator[tuple[tuple, object]]:
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, (dict, list)):
                yield from _repeated(item, (*keys, key))
    elif isinstance(value, list):
        seen = set()
        for position, item in enumerate(value):
            if isinstance(item, (dict, list)):
                yield from _repeated(item, (*keys, position))
            if repr(item) in seen and keys:
                yield (*keys, position), item
            seen.add(repr(item))


def blanks(catalog: Catalog) -> Iterator[Problem]:
    """Nothing is left to be written."""
    for source in catalog.sources.values():
        if BLANK in source.text:
            for keys, text in _texts(source.value, ()):
                if text.startswith(BLANK):
                    yield blank(source, keys, text)


def _texts(value: object, keys: tuple) -> Iterator[tuple[tuple, str]]:
    if isinstance(value, str):
        yield keys, value
    elif isinstance(value, (dict, list)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _texts(item, (*keys, key))


def _text(item: object) -> str:
    text = ascii(item)
    return text if len(text) < 60 else f"{text[:56]}..."


# --- references between records ---------------------------------------------------------------------------------

SUGGESTIONS = 100  # looking for the nearest id costs time; past this many mistakes only the place is named


def references(catalog: Catalog) -> Iterator[Problem]:
    """Every id that a record names exists, and no record names itself."""
    left = SUGGESTIONS
    known = {kind: catalog.ids(kind) for kind in [*KINDS, *TABLES]}
    for kind in NAMED_BY:
        for id, record in getattr(catalog, kind).items():
            source, above = catalog.source(kind, id), (id,) if kind in TABLES else ()
            for keys, target, value in NAMED_BY[kind](record):
                if value not in known[target]:
                    left -= 1
                    near = records.nearest(value, known[target]) if left >= 0 else None
                    where = f"catalog/{target}.yaml" if target in TABLES else f"catalog/{target}/"
                    mend = f"did you mean {near!r}?" if near else f"add it to {where} or name one that is there"
                    yield Problem(source.path, source.line(*above, *keys), f"unknown {_SINGULAR[target]} {value!r}", mend)
                elif target == kind and value == id:
                    yield Problem(source.path, source.line(*keys), f"{id} names itself", "delete it")


_SINGULAR = {
    "papers": "paper",
    "methods": "method",
    "codebases": "codebase",
    "resources": "resource",
    "taxonomy": "taxonomy node",
    "venues": "venue",
}


def _listed(record, name: str, target: str, *above) -> Iterator[tuple[tuple, str, str]]:
    for position, value in enumerate(getattr(record, name)):
        yield (*above, name, position), target, value


def _of_paper(paper) -> Iterator[tuple[tuple, str, str]]:
    yield ("venue",), "venues", paper.venue
    yield from _listed(paper, "taxonomy", "taxonomy")


def _of_method(method) -> Iterator[tuple[tuple, str, str]]:
    if method.introduced_by is not None:
        yield ("introduced_by",), "papers", method.introduced_by
    yield from _listed(method, "papers", "papers")
    yield from _listed(method, "taxonomy", "taxonomy")
    for position, link in enumerate(method.related):
        yield ("related", position, "method"), "methods", link.method


def _of_codebase(codebase) -> Iterator[tuple[tuple, str, str]]:
    yield from _listed(codebase, "papers", "papers")


def _of_resource(resource) -> Iterator[tuple[tuple, str, str]]:
    yield from _listed(resource, "papers", "papers")
    yield from _listed(resource, "methods", "methods")


def _of_reading_list(reading_list) -> Iterator[tuple[tuple, str, str]]:
    for i, section in enumerate(reading_list.sections):
        yield from _listed(section, "taxonomy", "taxonomy", "sections", i)
        for j, entry in enumerate(section.entries):
            for name, target in (("paper", "papers"), ("codebase", "codebases"), ("resource", "resources")):
                if getattr(entry, name) is not None:
                    yield ("sections", i, "entries", j, name), target, getattr(entry, name)


def _of_node(node) -> Iterator[tuple[tuple, str, str]]:
    yield ("introduced_by",), "papers", node.introduced_by


NAMED_BY: dict[str, Callable] = {  # kind -> (where it stands, kind of what is named, its id) of a record
    "papers": _of_paper,
    "methods": _of_method,
    "codebases": _of_codebase,
    "resources": _of_resource,
    "reading_lists": _of_reading_list,
    "taxonomy": _of_node,
}


def entries(catalog: Catalog) -> Iterator[Problem]:
    """An entry of a reading list is one paper, one codebase or one resource."""
    for id, reading_list in catalog.reading_lists.items():
        source = catalog.source("reading_lists", id)
        for i, section in enumerate(reading_list.sections):
            for j, entry in enumerate(section.entries):
                targets = [name for name in ("paper", "codebase", "resource") if getattr(entry, name) is not None]
                if len(targets) != 1:
                    what = f"an entry with {' and '.join(targets) or 'no target'}"
                    line = source.line("sections", i, "entries", j)
                    yield Problem(source.path, line, what, "name exactly one of paper, codebase, resource")


# --- papers -----------------------------------------------------------------------------------------------------


def identifiers(catalog: Catalog) -> Iterator[Problem]:
    """Every paper can be found by a reader, and no two records are the same paper."""
    seen: dict[tuple[str, str], str] = {}
    for id, paper in sorted(catalog.papers.items()):
        source = catalog.source("papers", id)
        found = list(_identifiers(paper))
        if not found:
            yield Problem(source.path, 1, "no arXiv id, DOI, OpenReview id or link", "add at least one")
        for key, what, value in found:
            other = seen.setdefault((what, value), id)
            if other != id:
                mend = f"delete one of the two records or correct the {what}"
                path = catalog.source("papers", other).path
                yield Problem(source.path, source.line(key), f"the {what} {value} is also in {path}", mend)


def _identifiers(paper: Paper) -> Iterator[tuple[str, str, str]]:
    """(key, name, value) with the many ways to write one identifier folded into one."""
    for key, text in (("arxiv", paper.arxiv), ("doi", paper.doi), ("openreview", paper.openreview), ("url", paper.url)):
        if text is None:
            continue
        if key == "arxiv" or (match := _ARXIV.search(text)):
            number = text if key == "arxiv" else match[1]
            yield key, "arXiv id", re.sub(r"\.[A-Z]{2}/", "/", number)
        elif key == "doi" or (match := _DOI.search(text)):
            yield key, "DOI", (text if key == "doi" else match[1]).lower()
        elif key == "openreview" or (match := _OPENREVIEW.search(text)):
            yield key, "OpenReview id", text if key == "openreview" else match[1]
        else:
            yield key, "link", _same_link(text)


_ARXIV = re.compile(r"(?:^10\.48550/arxiv\.|//(?:www\.)?arxiv\.org/(?:abs|pdf)/)([a-z.-]*/?[\d.]*\d)", re.I)
_DOI = re.compile(r"//(?:dx\.)?doi\.org/(10\..+)", re.I)
_OPENREVIEW = re.compile(r"//openreview\.net/(?:forum|pdf)\?id=([\w-]+)", re.I)


def _same_link(url: str) -> str:
    """One spelling for the links that lead to one place."""
    link = re.sub(r"^https?://(www\.)?", "", url.split("#")[0].rstrip("/")).removesuffix(".git")
    host, slash, rest = link.partition("/")
    return host.lower() + slash + (rest.lower() if host.lower() in ("github.com", "huggingface.co") else rest)


def titles(catalog: Catalog) -> Iterator[Problem]:
    """No two papers have nearly the same title (tools/titles.py says what that means)."""
    known = [
        (id, title)
        for id, paper in sorted(catalog.papers.items())
        for title in [paper.title, *(alias for alias in paper.aliases if len(alias.split()) > 3)]
    ]
    for id, other in near_same(known):
        source, path = catalog.source("papers", id), catalog.source("papers", other).path
        mend = "delete one of the two records or correct the title"
        yield Problem(source.path, source.line("title"), f"nearly the title of {path}", mend)


def years(catalog: Catalog) -> Iterator[Problem]:
    """No paper was published before its first version was on arXiv."""
    for id, paper in catalog.papers.items():
        posted, *_ = paper.first_known
        if posted > paper.year:
            source = catalog.source("papers", id)
            what = f"arXiv id {paper.arxiv} is of {posted}, after the year {paper.year}"
            yield Problem(source.path, source.line("arxiv"), what, "correct the year or the arXiv id")


def code_links(catalog: Catalog) -> Iterator[Problem]:
    """One repository is the official code of papers that share an author."""
    claims: dict[str, tuple[str, set[str]]] = {}
    for id, paper in sorted(catalog.papers.items()):
        authors = {_person(author) for author in paper.authors}
        source = catalog.source("papers", id)
        links = set()
        for position, code in enumerate(paper.code):
            link = _same_link(code.url)
            if link in links:
                what = f"the code link {code.url} stands twice"
                yield Problem(source.path, source.line("code", position, "url"), what, "delete one")
                continue
            links.add(link)
            if not code.official:
                continue
            first, known = claims.setdefault(link, (id, authors))
            if known & authors:
                claims[link] = (first, known | authors)
                continue
            path = catalog.source("papers", first).path
            what = f"the code link {code.url} is also claimed by {path}, which shares no author"
            mend = "find out whose it is; `official: false` where others wrote it"
            yield Problem(source.path, source.line("code", position, "url"), what, mend)


def _person(author: str) -> str:
    """Family name and initial: "Wei Li" and "W. Li" are taken for one person."""
    parts = words(author)
    return f"{parts[-1]} {parts[0][0]}" if parts else author


def project_links(catalog: Catalog) -> Iterator[Problem]:
    """No codebase or resource is recorded twice."""
    seen: dict[str, Source] = {}
    for kind in ("codebases", "resources"):
        for id, record in sorted(getattr(catalog, kind).items()):
            source = catalog.source(kind, id)
            other = seen.setdefault(_same_link(record.url), source)
            if other is not source:
                what = f"the link {record.url} is also in {other.path}"
                yield Problem(source.path, source.line("url"), what, "delete one of the two records or correct the link")


# --- taxonomy ---------------------------------------------------------------------------------------------------


def taxonomy(catalog: Catalog) -> Iterator[Problem]:
    """Every node has its parent and a paper in it or below it, the one that introduces it among them."""
    complete = len(catalog.papers) == len(catalog.ids("papers"))  # a refused record is missing in its nodes
    for node, record in catalog.taxonomy.items():
        source = catalog.source("taxonomy", node)
        parent = node.rpartition("/")[0]
        if parent and parent not in catalog.ids("taxonomy"):
            yield Problem(source.path, source.line(node), f"{node} has no parent", f"add {parent}")
        if complete and not catalog.papers_by_taxonomy[node]:
            what = f"no paper is in {node} or below it"
            yield Problem(source.path, source.line(node), what, "file a paper there or delete the node")
        elif (first := record.introduced_by) in catalog.papers and first not in catalog.papers_by_taxonomy[node]:
            what = f"{first} introduces {node} but is not in it or below it"
            yield Problem(source.path, source.line(node, "introduced_by"), what, "file it there or name a paper that is there")


# --- methods ----------------------------------------------------------------------------------------------------


def origins(catalog: Catalog) -> Iterator[Problem]:
    """A method comes from a paper, or its note says from where; no paper is named twice."""
    for id, method in catalog.methods.items():
        source = catalog.source("methods", id)
        if method.introduced_by is None and method.note is None:
            line = source.line("introduced_by")
            yield Problem(source.path, line, "introduced by no paper and no note", "say in `note` where it comes from")
        for position, paper in enumerate(method.papers):
            if paper == method.introduced_by:
                what = f"{paper} is already named by introduced_by"
                yield Problem(source.path, source.line("papers", position), what, "delete it here")


def cycles(catalog: Catalog) -> Iterator[Problem]:
    """What a method builds on or refines was there before it."""
    later: dict[str, list[tuple[int, str]]] = {
        id: [
            (position, link.method)
            for position, link in enumerate(method.related)
            if link.how in ("builds on", "refines") and link.method != id and link.method in catalog.methods
        ]
        for id, method in sorted(catalog.methods.items())
    }
    done: set[str] = set()
    for start in later:
        trail: dict[str, None] = {}  # the methods on the way from start, in order
        steps = [iter([(0, start)])]
        while steps:
            position, method = next(steps[-1], (0, None))
            if method is None:
                steps.pop()
                if trail:
                    done.add(trail.popitem()[0])
            elif method in trail:
                way = list(trail)
                source = catalog.source("methods", way[-1])
                circle = " -> ".join([*way[way.index(method) :], method])
                what, mend = f"methods in a circle: {circle}", "the earlier one does not build on the later one"
                yield Problem(source.path, source.line("related", position, "method"), what, mend)
            elif method not in done:
                trail[method] = None
                steps.append(iter(later[method]))


def descent(catalog: Catalog) -> Iterator[Problem]:
    """What a method builds on or refines was known before it: by month where both papers are on arXiv, else by year."""
    for id, method in catalog.methods.items():
        paper = catalog.papers.get(method.introduced_by or "")
        for position, link in enumerate(method.related if paper else ()):
            other = catalog.methods.get(link.method)
            earlier = catalog.papers.get(other.introduced_by or "") if other else None
            if earlier is None or link.how not in ("builds on", "refines"):
                continue
            dates = [paper.first_known, earlier.first_known]
            own, theirs = (date[: min(map(len, dates))] for date in dates)
            if theirs > own:
                source = catalog.source("methods", id)
                what = f"{link.how} {link.method} of {_date(theirs)}, but {id} is of {_date(own)}"
                mend = f"state the relation in {link.method}, or write `compares with`"
                yield Problem(source.path, source.line("related", position, "method"), what, mend)


def _date(date: tuple[int, ...]) -> str:
    return "-".join(f"{part:02}" for part in date)


# --- methods and their code -------------------------------------------------------------------------------------


def implementations(catalog: Catalog) -> Iterator[Problem]:
    """A module has its record, its test and its function, and cites the paper that its record names."""
    for (chapter, id), found in catalog.implementations.items():
        record_path = catalog.folder / "methods" / chapter / f"{id}.yaml"
        if found.error:
            line, what = found.error
            yield Problem(found.path, line, f"not Python: {what}", "mend the syntax")
        elif not found.defines:
            yield Problem(found.path, 1, f"no function {id} in the module", "name the method's function as the module")
        if not found.test.is_file():
            yield Problem(found.path, 1, "no test for this module", f"write {found.test}")
        if not record_path.is_file():
            yield Problem(found.path, 1, "no record for this module", f"write {record_path}")
        elif id in catalog.methods and catalog.chapters[id] == chapter and not found.error:
            method = catalog.methods[id]
            if method.introduced_by is None and (found.cites is None or found.cites in method.papers):
                continue
            if found.cites != method.introduced_by and method.introduced_by in {None, *catalog.ids("papers")}:
                what = f"the module cites {found.cites or 'no paper'}, its record {method.introduced_by or 'none'}"
                mend = f"begin the docstring with `{method.name} ({method.introduced_by}).` or correct {record_path}"
                if method.introduced_by is None:
                    mend = f"leave the parenthesis out or add the paper to `papers` in {record_path}"
                yield Problem(found.path, found.line, what, mend)


def separating_tests(catalog: Catalog) -> Iterator[Problem]:
    """Every departure that a record states is shown by a test."""
    if not catalog.has_code:
        return
    for id, method in catalog.methods.items():
        if not method.differs:
            continue
        source, path = catalog.source("methods", id), catalog.test_path(catalog.chapters[id], id)
        known = test_names(path)
        for position, statement in enumerate(method.differs):
            if statement.test not in known:
                near = records.nearest(statement.test, known)
                mend = f"did you mean {near!r}?" if near else f"write it in {path}"
                line = source.line("differs", position, "test")
                yield Problem(source.path, line, f"no test {statement.test!r}", mend)


RULES: tuple[Callable[[Catalog], Iterator[Problem]], ...] = (
    paths,
    formats,
    schemas,
    blanks,
    repetitions,
    references,
    entries,
    identifiers,
    confirmed.sources,
    titles,
    people.works,
    people.names,
    years,
    code_links,
    project_links,
    taxonomy,
    origins,
    cycles,
    descent,
    stable.redirects,
    implementations,
    separating_tests,
)
