"""A module as one file that needs nothing of this project: what it defines, and from other modules just what it uses.

Definitions keep their text and their order; imports of the project are replaced by what they import. Methods and demos are
offered for download like this, and their notebooks hold the same text.
"""

from __future__ import annotations

import ast
import io
import keyword
import re
import tokenize
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

PACKAGES = ("reference_impls", "docs")
FUTURE = "from __future__ import annotations"


@dataclass
class Module:
    """One parsed module: its text, the top-level statements by the names they define, and what it takes from the project."""

    name: str
    source: str
    tree: ast.Module
    defined: dict[str, ast.stmt] = field(default_factory=dict)
    taken: dict[str, str] = field(default_factory=dict)  # name -> the module of the project that it comes from
    foreign: dict[str, str] = field(default_factory=dict)  # name -> its import statement


def standalone(path: Path, root: Path) -> str:
    """The text of one file that defines what a module defines and runs on its own."""
    return "".join(pieces(path, root))


def pieces(path: Path, root: Path) -> tuple[str, str]:
    """The text of that file in two: what comes from other modules, and what the module itself defines.

    Raises:
        ValueError: an import of the project that renames what it imports or takes a whole module.
    """
    main = _module(".".join(path.relative_to(root).with_suffix("").parts), root)
    wanted: dict[str, dict[str, None]] = {}  # module -> names
    _collect(main, list(main.defined), root, wanted)
    needed = {name: wanted[name] for name in _in_order(main.name, wanted, root)}
    clashes = _clashes(needed, main.name, root)
    parts, imports = [], {}
    for name, wanted in needed.items():
        module = _module(name, root)
        nodes = list({id(module.defined[n]): module.defined[n] for n in wanted}.values())
        for used in {used for node in nodes for used in _names(node)}:
            if used in module.foreign:
                imports[module.foreign[used]] = None
        text = "\n\n\n".join(_text(module, node) for node in sorted(nodes, key=lambda node: node.lineno))
        own_clashes = {old: new for (home, old), new in clashes.items() if home == name}
        reached = {old: clashes[home, old] for old, home in module.taken.items() if (home, old) in clashes}
        title = "" if name == main.name else f"# --- from {name.replace('.', '/')}.py\n\n"
        parts.append(title + _renamed(text, own_clashes | reached))
    head = f"{_docstring(main)}\n\n{FUTURE}\n\n" + "\n".join(sorted(imports, key=lambda line: (line.startswith("from"), line)))
    *before, own = parts
    return "\n\n\n".join([head, *before]) + "\n\n\n", own + "\n"


@cache
def _module(name: str, root: Path) -> Module:
    place = root.joinpath(*name.split("."))
    file = place.with_suffix(".py") if place.with_suffix(".py").is_file() else place / "__init__.py"
    source = file.read_text(encoding="utf-8")
    module = Module(name, source, ast.parse(source))
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in module.tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            module.defined[node.name] = node
        elif isinstance(node, ast.Assign):
            module.defined |= {
                found.id: node for target in node.targets for found in ast.walk(target) if isinstance(found, ast.Name)
            }
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            module.defined[node.target.id] = node
    for node in ast.walk(module.tree):
        if not isinstance(node, (ast.Import, ast.ImportFrom)):
            continue
        origin = _origin(node, package)
        for alias in node.names:
            if origin.split(".")[0] in PACKAGES:
                if isinstance(node, ast.Import) or alias.asname:
                    raise ValueError(f"{name} imports {ast.unparse(node)!r}; import names of the project one by one, as they are")
                module.taken[alias.name] = origin
            elif origin != "__future__" and node in module.tree.body:
                kind = f"from {origin} import " if isinstance(node, ast.ImportFrom) else "import "
                bound = alias.asname or (alias.name if isinstance(node, ast.ImportFrom) else alias.name.split(".")[0])
                module.foreign[bound] = f"{kind}{alias.name}{f' as {alias.asname}' if alias.asname else ''}"
    return module


def _origin(node: ast.Import | ast.ImportFrom, package: str) -> str:
    if isinstance(node, ast.Import):
        return node.names[0].name
    if not node.level:
        return node.module or ""
    base = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*base, *([node.module] if node.module else [])])


def _collect(module: Module, names: list[str], root: Path, wanted: dict[str, dict[str, None]]) -> None:
    """Mark names of a module and everything that they use."""
    marked = wanted.setdefault(module.name, {})
    waiting = list(names)
    while waiting:
        name = waiting.pop(0)
        if name in marked:
            continue
        marked[name] = None
        for used in _names(module.defined[name]):
            if used in module.defined:
                waiting.append(used)
            elif used in module.taken:
                _collect(*_home(module.taken[used], used, root), root, wanted)


def _in_order(name: str, wanted: dict[str, dict[str, None]], root: Path) -> list[str]:
    """The marked modules, each after those that it takes from."""
    seen: set[str] = set()

    def visit(name: str) -> None:
        if name not in seen:
            seen.add(name)
            for other in _module(name, root).taken.values():
                visit(other)
            order.append(name)

    order: list[str] = []
    visit(name)
    return [name for name in order if name in wanted]


def _home(origin: str, name: str, root: Path) -> tuple[Module, list[str]]:
    """The module that defines a name, through packages that pass it on."""
    module = _module(origin, root)
    return _home(module.taken[name], name, root) if name in module.taken and name not in module.defined else (module, [name])


def _names(node: ast.AST) -> list[str]:
    """Names that a definition uses, annotations in quotes among them."""
    found = [n.id for n in ast.walk(node) if isinstance(n, ast.Name)]
    return list(dict.fromkeys(found))


def _clashes(needed: dict[str, dict[str, None]], main: str, root: Path) -> dict[tuple[str, str], str]:
    """New names for what two modules call alike; the method's own module keeps its names."""
    homes: dict[str, list[str]] = {}
    for module, names in needed.items():
        for name in names:
            homes.setdefault(name, []).append(module)
    new = {}
    for name, modules in homes.items():
        for module in [m for m in modules if m != main] if len(modules) > 1 else []:
            new[module, name] = f"{name}_of_{module.rpartition('.')[2]}"
    return new


def _text(module: Module, node: ast.stmt) -> str:
    lines = module.source.splitlines()
    first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
    while first > 1 and lines[first - 2].startswith("#"):
        first -= 1
    inner = {line for n in ast.walk(node) if isinstance(n, ast.ImportFrom) and _origin(n, module.name.rpartition(".")[0]).startswith(PACKAGES)
             for line in range(n.lineno, n.end_lineno + 1)}  # fmt: skip
    return "\n".join(lines[number - 1] for number in range(first, node.end_lineno + 1) if number not in inner)


def _renamed(text: str, names: dict[str, str]) -> str:
    """The text with some names replaced, where they stand as names: not after a dot, not as a keyword of a call."""
    if not names:
        return text
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    lines = text.split("\n")
    for number in range(len(tokens) - 1, -1, -1):
        token = tokens[number]
        if token.type != tokenize.NAME or token.string not in names or keyword.iskeyword(token.string):
            continue
        before, after = tokens[number - 1].string if number else "", tokens[number + 1].string
        if before == "." or (after == "=" and before in ("(", ",") and token.start[1]):
            continue
        row, column = token.start[0] - 1, token.start[1]
        lines[row] = lines[row][:column] + names[token.string] + lines[row][column + len(token.string) :]
    return "\n".join(lines)


def _docstring(module: Module) -> str:
    node = module.tree.body[0]
    text = "\n".join(module.source.splitlines()[node.lineno - 1 : node.end_lineno])
    note = f"From the Model Fusion Atlas, {module.name.replace('.', '/')}.py, with what it uses of the project. MIT licence."
    return re.sub(r'("""|\'\'\')$', lambda quotes: f"\n{note}\n{quotes[1]}", text)
