"""The catalog in memory: every record with its position in its file, and the links that are computed, not stored.

`load(root)` reads `<root>/catalog` and never raises for bad data: what can't be read becomes a `Problem`, and the
record is left out. References between records are judged by `tools.check`, not here.
"""

from __future__ import annotations

import ast
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import yaml
from pydantic import ValidationError

from tools import records
from tools.records import KINDS, Codebase, Method, Node, Paper, Person, ReadingList, Record, Redirect, Resource, Venue

TABLES: dict[str, type[Record]] = {  # one file, a map from id to record
    "taxonomy": Node,
    "venues": Venue,
    "people": Person,
    "redirects": Redirect,
}
OPTIONAL = {"people", "redirects"}  # a catalog with nothing to say there has no such file
MAX_BYTES = 1_000_000  # of one file; a record has a few thousand
BLANK = "TODO"  # begins every text that a template leaves to be written
DEEPEST = 50  # levels of lists and maps in a file; a record has six
CITATION = re.compile(r"\(([a-z]+(?:19|20)\d{2}[a-z0-9]*)\)\.?\s*$")  # ends the first line of a module's docstring


class CatalogError(Exception):
    """Something that stops a command: one line for the reader, no traceback."""


@dataclass(frozen=True, order=True)
class Problem:
    path: Path
    line: int
    what: str
    mend: str

    def __str__(self) -> str:
        shown = str(self.path)
        return f"{shown if shown.isprintable() else ascii(shown)}:{self.line}: {self.what}; {self.mend}"


@dataclass(frozen=True)
class Source:
    """One YAML file: its text, its plain value and the nodes that know the lines."""

    path: Path
    text: str
    value: object = None
    node: yaml.Node | None = field(default=None, repr=False)

    def line(self, *keys: str | int) -> int:
        """The line (from 1) of the value under `keys`, or of the nearest thing above it that exists."""
        node, line = self.node, 1
        for key in keys:
            if isinstance(node, yaml.MappingNode):
                pair = next((pair for pair in node.value if pair[0].value == key), None)
                if pair is None:
                    break
                line, node = pair[0].start_mark.line + 1, pair[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
                node = node.value[key]
                line = node.start_mark.line + 1
            else:
                break
        return line


@dataclass(frozen=True)
class Implementation:
    """What `reference_impls/<chapter>/<id>.py` says, read without importing it."""

    id: str
    chapter: str
    path: Path
    line: int  # of the docstring
    cites: str | None  # the paper id in the first line of the module's docstring
    defines: bool  # a top-level function or class with the module's name
    error: tuple[int, str] | None  # line and message where the file is not Python
    test: Path  # where its test belongs; it may not exist

    @property
    def module(self) -> str:
        return f"reference_impls.{self.chapter}.{self.id}"

    @property
    def target(self) -> str | None:
        """module:function, or None while the function is not there."""
        return f"{self.module}:{self.id}" if self.defines else None


@dataclass(frozen=True)
class Catalog:
    root: Path  # the project: holds the catalog and, where there is code, reference_impls/ and tests/
    folder: Path
    papers: dict[str, Paper]
    methods: dict[str, Method]
    codebases: dict[str, Codebase]
    resources: dict[str, Resource]
    reading_lists: dict[str, ReadingList]
    taxonomy: dict[str, Node]
    venues: dict[str, Venue]
    people: dict[str, Person]
    redirects: dict[str, Redirect]
    chapters: dict[str, str]  # method id -> chapter
    sources: dict[tuple[str, str], Source]  # (kind, id) -> file; also those whose record is refused
    problems: tuple[Problem, ...]

    def ids(self, kind: str) -> set[str]:
        """The ids that exist, their records valid or not (so that one mistake is not reported twice)."""
        if kind in TABLES:
            source = self.sources.get((kind, kind))
            return {str(key) for key in source.value} if source and isinstance(source.value, dict) else set()
        return self._ids_by_kind[kind]

    def source(self, kind: str, id: str) -> Source:
        return self.sources[(kind, kind if kind in TABLES else id)]

    @cached_property
    def _ids_by_kind(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {kind: set() for kind in KINDS}
        for kind, id in self.sources:
            if kind in KINDS:
                found[kind].add(id)
        return found

    # --- links backwards, by id and sorted; each is computed once, when first asked for ---

    @cached_property
    def children(self) -> dict[str, list[str]]:
        """Taxonomy node -> the nodes directly below it; "" -> the top."""
        below: dict[str, list[str]] = defaultdict(list)
        for node in self.taxonomy:
            below[node.rpartition("/")[0]].append(node)
        return dict(below)

    @cached_property
    def papers_by_taxonomy(self) -> dict[str, list[str]]:
        """Taxonomy node -> the papers in it or below it."""
        return _by_node(self.taxonomy, self.papers)

    @cached_property
    def methods_by_taxonomy(self) -> dict[str, list[str]]:
        return _by_node(self.taxonomy, self.methods)

    @cached_property
    def methods_by_paper(self) -> dict[str, list[str]]:
        """Paper -> the methods it introduced, then those it says more about."""
        introduced = _invert((m.introduced_by, id) for id, m in sorted(self.methods.items()) if m.introduced_by)
        further = _invert((paper, id) for id, m in sorted(self.methods.items()) for paper in m.papers)
        return {p: list(dict.fromkeys(introduced.get(p, []) + further.get(p, []))) for p in {**introduced, **further}}

    @cached_property
    def methods_by_chapter(self) -> dict[str, list[str]]:
        return _invert((self.chapters[id], id) for id in sorted(self.methods))

    @cached_property
    def methods_by_related(self) -> dict[str, list[str]]:
        """Method -> the methods that name it under `related`."""
        return _invert((link.method, id) for id, m in sorted(self.methods.items()) for link in m.related)

    @cached_property
    def reading_lists_by_paper(self) -> dict[str, list[str]]:
        return self._reading_lists_by("paper")

    @cached_property
    def reading_lists_by_codebase(self) -> dict[str, list[str]]:
        return self._reading_lists_by("codebase")

    @cached_property
    def reading_lists_by_resource(self) -> dict[str, list[str]]:
        return self._reading_lists_by("resource")

    def _reading_lists_by(self, target: str) -> dict[str, list[str]]:
        return _invert(
            (getattr(entry, target), id)
            for id, reading_list in sorted(self.reading_lists.items())
            for section in reading_list.sections
            for entry in section.entries
            if getattr(entry, target)
        )

    @cached_property
    def codebases_by_paper(self) -> dict[str, list[str]]:
        return _invert((paper, id) for id, codebase in sorted(self.codebases.items()) for paper in codebase.papers)

    @cached_property
    def resources_by_paper(self) -> dict[str, list[str]]:
        return _invert((paper, id) for id, resource in sorted(self.resources.items()) for paper in resource.papers)

    @cached_property
    def resources_by_method(self) -> dict[str, list[str]]:
        return _invert((method, id) for id, resource in sorted(self.resources.items()) for method in resource.methods)

    # --- the code beside the catalog ---

    @property
    def has_code(self) -> bool:
        """A catalog on its own is data only; the rules that compare it with code need reference_impls/ beside it."""
        return (self.root / "reference_impls").is_dir()

    @cached_property
    def implementations(self) -> dict[tuple[str, str], Implementation]:
        """(chapter, id) -> module, found by listing reference_impls/<chapter>/."""
        return {
            (chapter, path.stem): _implementation(path, chapter, self.test_path(chapter, path.stem))
            for chapter in records.CHAPTERS
            for path in sorted((self.root / "reference_impls" / chapter).glob("[!_]*.py"))
        }

    def test_path(self, chapter: str, method: str) -> Path:
        return self.root / "tests" / "methods" / chapter / f"test_{method}.py"

    def implementation(self, method: str) -> str | None:
        """module:function of a method, or None while there is none."""
        found = self.implementations.get((self.chapters[method], method))
        return found.target if found else None


# --- reading ----------------------------------------------------------------------------------------------------


def load(root: Path | str = ".", folder: str = "catalog") -> Catalog:
    """Read `<root>/<folder>`. Raises CatalogError only when there is no such folder."""
    root = Path(root)
    home = root / folder
    if not home.is_dir():
        raise CatalogError(f"{home}: no such folder; name the catalog with --catalog DIR or run from the project's root")
    problems: list[Problem] = []
    sources: dict[tuple[str, str], Source] = {}
    found: dict[str, dict[str, Record]] = {kind: {} for kind in [*KINDS, *TABLES]}
    chapters: dict[str, str] = {}

    for kind, id, path in list_files(home):
        if (kind, id) in sources:
            other = sources[kind, id].path
            problems.append(Problem(path, 1, f"the id {id!r} is taken by {other}", "an id names one record: rename this one"))
            continue
        source, troubles = read(path)
        sources[kind, id] = source
        problems += troubles
        if troubles:
            continue
        if kind in TABLES:
            troubles, found[kind] = _read_table(source, TABLES[kind])
        else:
            troubles, record = validate(source, KINDS[kind])
            if record is not None:
                record._id = id
                found[kind][id] = record
        problems += troubles
        if kind == "methods":
            chapters[id] = path.parent.name  # tools.check says so where that is not a chapter

    return Catalog(root=root, folder=home, **found, chapters=chapters, sources=sources, problems=tuple(problems))


def load_from(folder: Path) -> Catalog:
    """The same for a command's `--catalog DIR`: the project is the folder that holds DIR."""
    if folder.name in ("", ".."):
        folder = folder.resolve()
    return load(folder.parent, folder.name)


def list_files(home: Path) -> Iterator[tuple[str, str, Path]]:
    """(kind, id, path) of every record file; taxonomy.yaml and venues.yaml come as ("taxonomy", "taxonomy", path)."""
    for table in TABLES:
        if (home / f"{table}.yaml").is_file():
            yield table, table, home / f"{table}.yaml"
    for kind in KINDS:
        for path in files_below(home / kind):
            if path.suffix == ".yaml":
                yield kind, path.stem, path


def files_below(folder: Path) -> Iterator[Path]:
    """Every file below a folder, in a fixed order; hidden ones belong to editors and systems."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from files_below(Path(entry.path))
        else:
            yield Path(entry.path)


def read(path: Path) -> tuple[Source, list[Problem]]:
    """Read one YAML file. A value comes only without problems."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            return Source(path, ""), [Problem(path, 1, f"larger than {MAX_BYTES} bytes", "a record is short: split it")]
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        return Source(path, ""), [Problem(path, line, "not UTF-8", "save the file in UTF-8")]
    except OSError as error:
        return Source(path, ""), [Problem(path, 1, f"cannot be read ({error.strerror})", "check that it is a readable file")]

    return parse(path, text)


def parse(path: Path, text: str) -> tuple[Source, list[Problem]]:
    """The same for text that is not on disk yet."""
    try:
        if text.count("[") + text.count("{") > DEEPEST or re.search(rf"^[ \t?-]{{{4 * DEEPEST}}}", text, re.MULTILINE):
            _refuse_depth(text)
        loader = yaml.CSafeLoader(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        position = getattr(error, "position", None)
        line = mark.line + 1 if mark else text[:position].count("\n") + 1 if position else 1
        what = getattr(error, "problem", None) or getattr(error, "reason", None) or "nested too deeply"
        mend = "put a text with : # or quotes in double quotes"
        return Source(path, text), [Problem(path, line, f"YAML cannot be read: {what}", mend)]
    if node is None:
        return Source(path, text), [Problem(path, 1, "empty file", "write the record or delete the file")]

    troubles: list[tuple[int, str, str]] = []
    value = _value(node, troubles, set())
    problems = [Problem(path, line + 1, what, mend) for line, what, mend in troubles]
    return Source(path, text, value, node), problems


def _refuse_depth(text: str) -> None:
    """libyaml's composer calls itself for every level and would end the process; its events come one by one."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEEPEST:
                raise yaml.MarkedYAMLError(problem="nested too deeply", problem_mark=event.start_mark)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _value(node: yaml.Node, troubles: list[tuple[int, str, str]], seen: set[int]) -> object:
    """The plain value of a node: text, whole number, true/false, null, list, map; nothing else is in a record."""
    line = node.start_mark.line
    if id(node) in seen:
        troubles.append((line, "used again by a YAML alias", "write the value out in each place"))
        return None
    seen.add(id(node))
    if not isinstance(node, yaml.ScalarNode) and node.tag not in ("tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"):
        troubles.append((line, f"the YAML tag {_short(node.tag)}", "delete it"))
        return None
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, troubles, seen) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, object] = {}
        for key, item in node.value:
            name, at = key.value, key.start_mark.line
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                troubles.append((at, f"the key {_short(name)} is not text", "put it in double quotes"))
            elif name in mapping:
                troubles.append((at, f"the key {_short(name)} stands twice", "keep one of the two"))
            else:
                mapping[name] = _value(item, troubles, seen)
        return mapping
    kind, text = node.tag.rpartition(":")[2], node.value
    if kind == "str":
        return text
    if kind == "null":
        return None
    if kind == "bool" and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if kind == "int" and re.fullmatch(r"-?(0|[1-9][0-9]{0,17})", text):
        return int(text)
    troubles.append((line, f"{_short(text)} is not read as text here (YAML {kind})", "put it in double quotes"))
    return None


# --- validation -------------------------------------------------------------------------------------------------


def validate(source: Source, model: type[Record], value: object = None, prefix: tuple[str, ...] = ()):
    """(problems, record): the record is None where there are problems."""
    try:
        return [], model.model_validate(source.value if value is None else value)
    except ValidationError as error:
        details = error.errors(include_url=False)
    meant = set()  # keys that are there with a slip: not missing too
    for detail in details:
        if detail["type"] == "extra_forbidden":
            *above, key = detail["loc"]
            meant.add((*above, records.nearest(str(key), _fields_at(model, above))))
    wrong = [detail for detail in details if detail["type"] != "missing" or tuple(detail["loc"]) not in meant]
    return [_schema_problem(source, model, prefix, detail) for detail in wrong], None


def _read_table(source: Source, model: type[Record]) -> tuple[list[Problem], dict[str, Record]]:
    if not isinstance(source.value, dict):
        return [Problem(source.path, 1, "not a map", "write `id:` and the record below it")], {}
    problems: list[Problem] = []
    found: dict[str, Record] = {}
    for id, value in source.value.items():
        troubles, record = validate(source, model, value if value is not None else {}, (id,))
        problems += troubles
        if record is not None:
            record._id = id
            found[id] = record
    return problems, found


def _schema_problem(source: Source, model: type[Record], prefix: tuple[str, ...], detail: dict) -> Problem:
    keys = tuple(key for key in detail["loc"] if key != "[key]")
    name, value = ".".join(map(str, keys)) or "the record", detail["input"]
    context = detail.get("ctx", {})
    if isinstance(value, str) and value.startswith(BLANK):
        return blank(source, (*prefix, *keys), value)
    if detail["type"] == "extra_forbidden":
        known = _fields_at(model, keys[:-1])
        what = f"unknown key {keys[-1]!r}"
        near = records.nearest(str(keys[-1]), known)
        mend = f"did you mean {near!r}?" if near else f"known keys: {', '.join(known)}"
    elif detail["type"] == "missing":
        what, mend = f"{name} is missing", "add it"
    elif detail["type"] == "literal_error":
        what, mend = f"{name}: unknown value {_short(value)}", f"use one of {context['expected']}"
        near = records.nearest(str(value), re.findall(r"'([^']*)'", context["expected"]))
        mend = f"did you mean {near!r}? One of {context['expected']}" if near else mend
    elif detail["type"] == "value_error":  # from our own validators: "what; how to mend it"
        what, _, mend = f"{name}: {context['error']}".partition("; ")
    else:
        what, mend = f"{name}: {_short(value)}: {detail['msg'][0].lower()}{detail['msg'][1:]}", _hint(detail)
    return Problem(source.path, source.line(*prefix, *keys), what, mend)


def blank(source: Source, keys: tuple[str | int, ...], value: str) -> Problem:
    return Problem(source.path, source.line(*keys), f"{_short(value)} is left from the template", "fill it in")


def _hint(detail: dict) -> str:
    kind = detail["type"]
    if kind.endswith("_type"):
        return f"write {_WANTED.get(kind, 'another kind of value')}"
    return "write it in that pattern" if kind == "string_pattern_mismatch" else "correct the value"


_WANTED = {
    "string_type": "text, in double quotes where it looks like a number or a date",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "list_type": "a list: one `- item` a line",
    "dict_type": "a map: one `key: value` a line",
    "model_type": "a map: one `key: value` a line",
}


def _fields_at(model: type[Record], keys: Sequence) -> list[str]:
    """The keys known at a place inside a record."""
    for key in keys:
        if isinstance(key, str) and key in model.model_fields:
            model = records.inner_record(model.model_fields[key].annotation) or model
    return list(model.model_fields)


def _short(value: object) -> str:
    text = ascii(value) if not str(value).isprintable() else repr(value)
    return text if len(text) <= 80 else f"{text[:76]}..."


# --- code, read as text -----------------------------------------------------------------------------------------


def _implementation(path: Path, chapter: str, test: Path) -> Implementation:
    line, cites, defines, error = 1, None, False, None
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError, RecursionError, MemoryError) as trouble:
        error = (getattr(trouble, "lineno", None) or 1, getattr(trouble, "msg", None) or str(trouble))
    else:
        docstring = ast.get_docstring(tree)
        if docstring:
            line = tree.body[0].lineno
            match = CITATION.search(docstring.splitlines()[0])
            cites = match[1] if match else None
        defines = any(
            isinstance(item, (ast.FunctionDef, ast.ClassDef)) and item.name == path.stem for item in tree.body
        )
    return Implementation(path.stem, chapter, path, line, cites, defines, error, test)


def test_names(path: Path) -> set[str]:
    """The test functions in a file; none where it is missing or not Python."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError, RecursionError, MemoryError):
        return set()
    return {item.name for item in ast.walk(tree) if isinstance(item, ast.FunctionDef) and item.name.startswith("test_")}


# --- inverting links --------------------------------------------------------------------------------------------


def _invert(pairs) -> dict[str, list[str]]:
    """(target, source) pairs -> target -> its sources, each once, in the order given."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for target, source in pairs:
        found[target][source] = None
    return {target: list(sources) for target, sources in found.items()}


def _by_node(taxonomy: dict[str, Node], members: dict[str, Paper] | dict[str, Method]) -> dict[str, list[str]]:
    pairs = []
    for id, record in sorted(members.items()):
        for node in record.taxonomy:
            parts = node.split("/")
            pairs += [("/".join(parts[:depth]), id) for depth in range(1, len(parts) + 1)]
    return {node: [] for node in taxonomy} | _invert(pairs)
