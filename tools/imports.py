"""Which modules of this project a module needs, by reading its imports."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path


def needed(module: Path, root: Path) -> list[Path]:
    """The module and all modules below `root` that it imports, directly or not, in the order of their paths."""
    files: set[Path] = set()
    waiting = [module]
    while waiting:
        file = waiting.pop()
        if file not in files:
            files.add(file)
            waiting += imported(file, root)
    return sorted(files)


@cache
def imported(file: Path, root: Path) -> list[Path]:
    """The modules below `root` that a file imports by name, its own conditional imports included."""
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = file.parent.relative_to(root).parts[: len(file.parent.relative_to(root).parts) + 1 - node.level]
            module = ".".join([*package, *filter(None, [node.module])]) if node.level else node.module
            names = [module, *(f"{module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            for candidate in (root / f"{name.replace('.', '/')}.py", root / name.replace(".", "/") / "__init__.py"):
                if candidate.is_file():
                    found.append(candidate)
    return found
