"""`python -m tools fmt [PATHS]`: write records in the one canonical format, and the JSON Schemas for editors.

Canonical: keys in the order of the type's fields, values that say nothing (null, empty, where that is the default) left
out, one line a value however long, lists indented below their key, text plain where YAML allows it and in double quotes
elsewhere, one newline at the end. Values are never changed. A comment would be lost, so a file that has one is refused.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml
from yaml.resolver import Resolver

from tools import schema
from tools.catalog import TABLES, CatalogError, Problem, Source, list_files, parse, read
from tools.records import KINDS, Record, inner_record

# --- the emitter ------------------------------------------------------------------------------------------------

NOT_FIRST = "!&*|>'\"%@`#,[]{}"  # indicators that can't begin plain text
NUMBER = re.compile(r"[-+]?(\.\d+|\d[\d_]*(\.\d*)?)([eE][-+]?\d+)?|0o[0-7]+|0x[0-9a-fA-F]+|[-+]?\.(inf|nan)", re.I)
NOT_TEXT = {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "~", "=", "<<"}  # in some YAML version


def canonical(kind: str, value: object) -> str:
    """The text of a record, or of a table of records, in the canonical format."""
    if kind in TABLES:
        lines = [line for key, item in value.items() for line in _entry(key, item, TABLES[kind], 0)]
    else:
        lines = list(_map(value, KINDS[kind], 0))
    return "\n".join(lines) + "\n"


def _map(mapping: dict, model: type[Record] | None, indent: int) -> Iterator[str]:
    fields = model.model_fields if model else {}
    known = [key for key in fields if key in mapping]
    for key in [*known, *(key for key in mapping if key not in fields)]:
        value = mapping[key]
        if key in fields:
            field = fields[key]
            if not field.is_required() and type(value) is type(field.default) and value == field.default:
                continue
            yield from _entry(key, value, inner_record(field.annotation), indent)
        else:
            yield from _entry(key, value, None, indent)


def _entry(key: str, value: object, model: type[Record] | None, indent: int) -> Iterator[str]:
    head = f"{' ' * indent}{scalar(key)}:"
    body = list(_block(value, model, indent + 2))
    if body:
        yield head
        yield from body
    else:
        yield f"{head} {scalar(value)}"


def _block(value: object, model: type[Record] | None, indent: int) -> Iterator[str]:
    """The lines of a list or a map; none for what fits beside its key."""
    if isinstance(value, dict):
        yield from _map(value, model, indent)
    elif isinstance(value, list):
        for item in value:
            body = list(_block(item, model, indent + 2)) or [scalar(item)]
            yield f"{' ' * indent}- {body[0].lstrip(' ')}"
            yield from body[1:]


def scalar(value: object) -> str:
    if isinstance(value, str):
        return value if _plain(value) else _quoted(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return "[]" if value == [] else "{}" if value == {} else str(value)


def _plain(text: str) -> bool:
    """Whether text without quotes is read back as the same text, by this and other readers of YAML."""
    if not text.isprintable() or text != text.strip() or not text:
        return False
    if text[0] in NOT_FIRST or (text[0] in "-?:" and text[1:2] in ("", " ")) or text.startswith(("---", "...")):
        return False
    if ": " in text or " #" in text or text.endswith(":"):
        return False
    if text.lower() in NOT_TEXT or NUMBER.fullmatch(text):
        return False
    return not any(pattern.match(text) for _, pattern in Resolver.yaml_implicit_resolvers.get(text[0], []))


def _quoted(text: str) -> str:
    return '"' + "".join(_escaped(character) for character in text) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    named = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
    code = ord(character)
    return named.get(character) or (f"\\x{code:02X}" if code < 256 else f"\\u{code:04X}" if code < 65536 else f"\\U{code:08X}")


# --- comments ---------------------------------------------------------------------------------------------------


def first_comment(text: str) -> int | None:
    """The line of the first comment; None without one. What lies between two tokens is space or a comment."""
    if "#" not in text:
        return None
    end = 0
    for token in yaml.scan(text, Loader=yaml.CSafeLoader):
        start = token.start_mark.index
        position = text.find("#", end, max(start, end))
        if position < 0 and isinstance(token, yaml.ScalarToken) and token.style in ("|", ">"):
            position = text.find("#", start, text.find("\n", start))
        if position >= 0:
            return text.count("\n", 0, position) + 1
        end = max(end, token.end_mark.index)
    position = text.find("#", end)
    return text.count("\n", 0, position) + 1 if position >= 0 else None


# --- the command ------------------------------------------------------------------------------------------------


def add_parser(commands) -> None:
    parser = commands.add_parser("fmt", help="write records in the canonical format, and the JSON Schemas")
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="records or folders; everything if left out")
    parser.add_argument("--catalog", type=Path, default=Path("catalog"), metavar="DIR")
    parser.set_defaults(run=run)


def run(args) -> int:
    home: Path = args.catalog
    if not home.is_dir():
        raise CatalogError(f"{home}: no such folder; name the catalog with --catalog DIR or run from the project's root")
    wanted = [path.resolve() for path in args.paths]
    files = [(kind, path) for kind, _, path in list_files(home)]
    chosen = [(kind, path) for kind, path in files if not wanted or _below(path.resolve(), wanted)]
    for path, absolute in zip(args.paths, wanted):
        if not any(_below(file.resolve(), [absolute]) for _, file in chosen):
            raise CatalogError(f"{path}: no record there; name a .yaml file or a folder inside {home}")

    written = 0
    problems: list[Problem] = []
    for kind, path in chosen:
        source, troubles = read(path)
        text, troubles = (None, troubles) if troubles else mended(kind, source)
        problems += troubles
        if text is not None and text != source.text:
            replace(path, text)
            written += 1
    if not wanted:
        (home / schema.FOLDER).mkdir(exist_ok=True)
        for name, text in schema.schemas().items():
            path = home / schema.FOLDER / name
            if not path.is_file() or path.read_bytes() != text.encode():
                replace(path, text)
                written += 1
    for problem in problems:
        print(problem)
    print(f"{len(chosen)} files read, {written} written, {len(problems)} left as they are", file=sys.stderr)
    return 1 if problems else 0


def mended(kind: str, source: Source) -> tuple[str | None, list[Problem]]:
    """The canonical text, or the reason why the file has to stay as it is."""
    comment = first_comment(source.text)
    if comment:
        return None, [Problem(source.path, comment, "a comment would be lost", "move it to `note` or delete it")]
    if not isinstance(source.value, dict):
        return None, [Problem(source.path, 1, "not a map", "write `key: value` lines")]
    text = canonical(kind, source.value)
    again, troubles = parse(source.path, text)
    if troubles or canonical(kind, again.value) != text:
        return None, [Problem(source.path, 1, "a value does not survive rewriting", "shorten its longest key")]
    return text, []


def replace(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    target = path.resolve()
    draft = target.with_name(f".{target.name}.draft")
    try:
        draft.write_bytes(text.encode("utf-8"))
        os.replace(draft, target)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise CatalogError(f"{path}: cannot be written ({error.strerror}); check the folder and its permissions") from None


def _below(path: Path, wanted: list[Path]) -> bool:
    return any(path == top or top in path.parents for top in wanted)
