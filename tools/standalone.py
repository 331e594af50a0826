"""One file out of a demo and what it uses of the project's modules, to be run with nothing but torch and NumPy installed.

Of every module those definitions are taken that the demo needs, directly or not, in the order of the modules' imports; where two
modules have one name for different things of their own, the later gets the name of its module in front.
"""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from tools.imports import imported

OWN = ("docs", "reference_impls")
END = '''
if __name__ == "__main__":
    picture = demo(**{control.name: control.start for control in CONTROLS})
    print(picture.title)
    for curve in picture.record("")["curves"]:
        print(f"{curve['name']}: {[round(value, 4) for value in curve['values'][0]]}")
'''


@dataclass
class Module:
    path: Path
    name: str  # as it is imported

    @cached_property
    def source(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def body(self) -> list[ast.stmt]:
        return ast.parse(self.source).body

    @cached_property
    def definitions(self) -> dict[str, ast.stmt]:
        """Name -> the statement at the top level that gives it."""
        found = {}
        for node in self.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found[node.name] = node
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                found |= {part.id: node for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)}
        return found

    @cached_property
    def borrowed(self) -> dict[str, tuple[str, str]]:
        """Name -> (module of the project, its name there)."""
        nodes = [node for node in ast.walk(ast.parse(self.source)) if _is_own(node)]
        return {alias.asname or alias.name: (node.module, alias.name) for node in nodes for alias in node.names}

    @cached_property
    def foreign(self) -> dict[str, str]:
        """Name -> the import of another package that gives it."""
        found = {}
        for node in self.body:
            if isinstance(node, ast.Import | ast.ImportFrom) and not _is_own(node):
                package = f"from {node.module} " if isinstance(node, ast.ImportFrom) else ""
                for alias in node.names:
                    found[alias.asname or alias.name.partition(".")[0]] = f"{package}import {ast.unparse(alias)}"
        return found


def standalone(demo: Path, root: Path) -> str:
    """The source of a file that gives what the demo gives.

    Raises:
        ValueError: two modules mean different things by one public name, or a module of the project is imported as a whole.
    """
    modules = {module.name: module for module in _in_order(demo, root)}
    *_, first = modules.values()
    wanted: dict[str, set[str]] = {name: set() for name in modules}
    _want(first, list(first.definitions), modules, wanted)
    taken: dict[str, str] = {}  # name -> the text that gives it
    imports: dict[str, None] = {}
    parts = []
    for module in modules.values():
        chosen = [node for node in module.body if any(module.definitions.get(name) is node for name in wanted[module.name])]
        renamed = {}
        for name in [name for name in module.definitions if name in wanted[module.name]]:
            text = ast.unparse(module.definitions[name])
            if taken.setdefault(name, text) != text:
                if any((module.name, name) in other.borrowed.values() for other in modules.values()):
                    raise ValueError(f"{module.name} and a module before it both define {name}, and others use it")
                renamed[name] = f"{'_' * name.startswith('_')}{module.path.stem}_{name.lstrip('_')}"
        used = {name for node in chosen for name in _names(node)}
        imports |= dict.fromkeys(text for name, text in module.foreign.items() if name in used)
        if chosen:
            where = module.path.relative_to(root).as_posix()
            second = [f"{name} = {module.borrowed[name][1]}\n" for name in sorted(wanted[module.name] - set(module.definitions))]
            text = "".join(second) + _renamed(_cut(module.source, chosen), renamed)
            parts.append(f"# --- {where} {'-' * max(3, 114 - len(where))}\n\n\n{text}")
    about = ast.get_docstring(ast.parse(first.source))
    head = [f'"""{about}"""', "", "from __future__ import annotations", "", *sorted(imports, key=_rank)]
    return "\n".join([*head, "", *(f"{part}\n" for part in parts), END[1:]])


def notebook(source: str, title: str, reading: str) -> str:
    """The same file as a Jupyter notebook: what it shows, the modules, and the demo in a cell of its own."""
    start = source.rindex("# --- docs/demos/")
    cells = [{"cell_type": "markdown", "metadata": {}, "source": f"# {title}\n\n{reading}"}]
    for part in (source[:start], source[start:]):
        cells.append({"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": part.strip("\n")})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return json.dumps({"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 4}, indent=1) + "\n"


def _in_order(demo: Path, root: Path) -> list[Module]:
    """Every module after those that it needs."""
    seen: set[Path] = set()
    done: list[Module] = []

    def visit(file: Path) -> None:
        seen.add(file)
        for other in imported(file, root):
            if other not in seen:
                visit(other)
        done.append(_read(file, root))

    visit(demo)
    return done


@cache
def _read(file: Path, root: Path) -> Module:
    """A module, parsed once for all demos that need it."""
    return Module(file, ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__"))


def _want(module: Module, names: list[str], modules: dict[str, Module], wanted: dict[str, set[str]]) -> None:
    """Mark names of a module and all that their definitions use."""
    for name in names:
        if name in wanted[module.name]:
            continue
        if name not in module.definitions:
            if name not in module.borrowed:
                raise ValueError(f"{module.name} does not define {name}")
            other, there = module.borrowed[name]
            if f"{other}.{there}" in modules or other not in modules:
                raise ValueError(f"{module.name} imports {other}.{there} as a whole")
            if there != name:
                wanted[module.name].add(name)  # becomes a second name
            _want(modules[other], [there], modules, wanted)
            continue
        wanted[module.name].add(name)
        used = _names(module.definitions[name])
        _want(module, sorted(used & (set(module.definitions) | set(module.borrowed))), modules, wanted)


def _names(node: ast.AST) -> set[str]:
    """Every name that a statement uses, in annotations too."""
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def _is_own(node: ast.AST) -> bool:
    return isinstance(node, ast.ImportFrom) and not node.level and node.module.partition(".")[0] in OWN


def _cut(source: str, chosen: list[ast.stmt]) -> str:
    """The lines of some statements, with the comments above them; imports within functions are at home already."""
    lines = source.splitlines()
    for node in chosen:
        for inner in ast.walk(node):
            if _is_own(inner):
                lines[inner.lineno - 1] = re.sub(r"\S.*", "pass", lines[inner.lineno - 1])
                lines[inner.lineno : inner.end_lineno] = [""] * (inner.end_lineno - inner.lineno)
    out = []
    for node in sorted(chosen, key=lambda node: node.lineno):
        start = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))]) - 1
        while start and lines[start - 1].startswith("#") and not lines[start - 1].startswith("# ---"):
            start -= 1
        space = ["", ""] if isinstance(node, ast.FunctionDef | ast.ClassDef) else []
        out += [*space, *lines[start : node.end_lineno], *space]
    return re.sub(r"\n{4,}", "\n\n\n", "\n".join(out).strip("\n")) + "\n"


def _renamed(source: str, names: dict[str, str]) -> str:
    if not names:
        return source
    lines, before = source.splitlines(keepends=True), None
    places = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME and token.string in names and before != ".":
            places.append((token.start, token.string))
        before = token.string
    for (row, column), name in reversed(places):
        line = lines[row - 1]
        lines[row - 1] = line[:column] + names[name] + line[column + len(name) :]
    return "".join(lines)


def _rank(statement: str) -> tuple[bool, bool, str]:
    """The standard library first, "import" before "from"."""
    outside = bool(re.match(r"(import|from) (torch|numpy|scipy|ot)\b", statement))
    return outside, statement.startswith("from"), statement
