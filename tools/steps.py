"""The steps of a method, read from its module: what it calls in turn and what its comments say, each with its line.

A step is the first sentence of the function that a line calls (of the module itself, of `core`, or of another method), or the
comment that stands at the line. Nothing is written down twice: change the code and the steps change.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# What only dresses tensors or refuses wrong input is no step of the mathematics.
_DRESSING = re.compile(r"(check|_check|as_|to_|_to_)\w*|flatten|unflatten|zip_map|tied_to|identity|count_kept|copy_of")
_FEW = 3


@dataclass(frozen=True)
class Step:
    line: int  # in the module's file
    name: str | None  # of the function that is called there; None for a comment
    text: str  # a sentence, with `code` and $math$


def read_steps(path: Path, root: Path) -> list[Step]:
    """The steps of the function named as the module; where it has few, those of its private functions too."""
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    own = _definitions(tree)
    if path.stem not in own:
        return []
    known = {name: _first_sentence(node) for name, node in own.items() if name != path.stem} | _imported(tree, root)
    remarks = _remarks(source)
    steps = _steps_of(own[path.stem], known, remarks)
    if len(steps) < _FEW:
        called = [own[step.name] for step in steps if step.name in own]
        inner = {step for node in called for step in _steps_of(node, known, remarks)}
        steps = sorted({*steps, *inner}, key=lambda step: step.line)
    return steps


def _steps_of(node: ast.AST, known: dict[str, str], remarks: dict[int, str]) -> list[Step]:
    body = node.body[1:] if ast.get_docstring(node) else node.body
    if not body:
        return []
    steps, seen = [], set()
    inside = [found for part in body for found in ast.walk(part)]
    calls = {id(call.func): call for call in inside if isinstance(call, ast.Call)}
    uses = [found for found in inside if isinstance(found, ast.Name)]  # called here, or handed to what calls it
    for use in sorted(uses, key=lambda use: _end(calls.get(id(use), use))):  # inner calls come first
        name = use.id
        if known.get(name) and name not in seen and not _DRESSING.fullmatch(name):
            seen.add(name)
            steps.append(Step(use.lineno, name, known[name]))
    first, last = body[0].lineno, node.end_lineno
    steps += [Step(line, None, text) for line, text in remarks.items() if first <= line <= last]
    return sorted(steps, key=lambda step: step.line)


def _end(node: ast.AST) -> tuple[int, int]:
    return node.end_lineno, node.end_col_offset


def _definitions(tree: ast.Module) -> dict[str, ast.FunctionDef | ast.ClassDef]:
    return {node.name: node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}


def _imported(tree: ast.Module, root: Path) -> dict[str, str]:
    """Name -> first sentence, for what the module takes from other modules of the project."""
    found = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("reference_impls"):
            sentences = _sentences(root, node.module)
            found |= {alias.asname or alias.name: sentences[alias.name] for alias in node.names if alias.name in sentences}
    return found


@cache
def _sentences(root: Path, module: str) -> dict[str, str]:
    place = root.joinpath(*module.split("."))
    file = place.with_suffix(".py") if place.with_suffix(".py").is_file() else place / "__init__.py"
    if not file.is_file():
        return {}
    definitions = _definitions(ast.parse(file.read_text(encoding="utf-8")))
    return {name: _first_sentence(node) for name, node in definitions.items() if ast.get_docstring(node)}


def _first_sentence(node: ast.AST) -> str:
    paragraph = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
    sentence = paragraph.split("$$")[0].strip().rstrip(":").removeprefix("Return ").removeprefix("Returns ")
    return sentence[:1].upper() + sentence[1:] if re.match(r"[a-z]{2}", sentence) else sentence


def _remarks(source: str) -> dict[int, str]:
    """Line -> comment, for comments that say something: no shapes, no directives; a comment over several lines is one."""
    found: dict[int, str] = {}
    first = last = 0  # lines of the comment that is being read
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        words = re.sub(r"\s*#?\s*(noqa|fmt|type):.*", "", token.string.lstrip("# ")).strip()
        line, alone = token.start[0], not token.line[: token.start[1]].strip()
        if alone and line == last + 1 and first in found:
            found[first] += f" {words}"
        elif len(re.findall(r"[A-Za-z]{2,}", words)) >= 3:
            first, found[line] = line, words
        last = line
    return found
