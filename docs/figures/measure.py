"""Run the figures and keep their numbers: `python -m docs.figures.measure [method ...]`.

Each figure runs over the seeds 0, 1 and 2 with one thread and writes `docs/figures/data/<method>.json`; the site draws from
these files alone. Only figures are run whose modules changed, their own or any that they import; `--all` runs every one.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import hashlib
import importlib
import json
import re
import sys
import time
from pathlib import Path

from tools.imports import needed

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DATA = HERE / "data"
SEEDS = (0, 1, 2)


def figures() -> dict[str, Path]:
    """Method -> the module of its figure, found by listing files."""
    return {file.stem: file for file in sorted(HERE.glob("*/*.py"))}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m docs.figures.measure", description=__doc__.partition("\n")[0])
    parser.add_argument("methods", nargs="*", help="methods to measure (default: all whose modules changed)")
    parser.add_argument("--all", action="store_true", help="measure also what has not changed")
    arguments = parser.parse_args(argv)
    known = figures()
    if unknown := sorted(set(arguments.methods) - set(known)):
        parser.error(f"no figure for {', '.join(unknown)}; there are {', '.join(known)}")

    import torch

    torch.set_num_threads(1)
    for method in arguments.methods or known:
        file = DATA / f"{method}.json"
        recorded = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        if not arguments.all and recorded.get("fingerprint") == fingerprint(known[method]):
            continue
        began = time.perf_counter()
        text = json.dumps(measure(method), indent=1, ensure_ascii=False)
        DATA.mkdir(exist_ok=True)
        file.write_text(_short_lists(text) + "\n", encoding="utf-8")
        print(f"{method}: {time.perf_counter() - began:.1f} s", flush=True)
    return 0


def measure(method: str, seeds: tuple[int, ...] = SEEDS) -> dict:
    """Run one figure: its words, the values of every seed, and how to make it again."""
    path = figures()[method]
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    runs = [module.measure(seed) for seed in seeds]
    for run in runs:
        if list(run.curves) != list(runs[0].curves) or any(run.curves[n][0] != runs[0].curves[n][0] for n in run.curves):
            raise ValueError(f"the seeds of {method} give curves of different names or positions")
    figure = module.FIGURE
    curves = [
        {"name": name, "x": _rounded(xs), "values": [_rounded(run.curves[name][1]) for run in runs]}
        for name, (xs, _) in runs[0].curves.items()
    ]
    cells = {row: {n: _rounded(run.table[row][n] for run in runs) for n in columns} for row, columns in runs[0].table.items()}
    table = [{"name": row, "cells": [{"name": n, "values": v} for n, v in columns.items()]} for row, columns in cells.items()]
    out = {"method": method} | dataclasses.asdict(figure)
    out |= {"seeds": list(seeds), "curves": curves, "table": table}
    if hasattr(module, "recover"):
        out["recovery"] = module.recover()
    return out | {"command": f"python -m docs.figures.measure {method}", "fingerprint": fingerprint(path)}


def fingerprint(path: Path) -> str:
    """A hash of the code of a module and of all modules of this project that it imports, directly or not."""
    digest = hashlib.sha256()
    for file in needed(path, ROOT):
        digest.update(file.relative_to(ROOT).as_posix().encode() + b"\0" + _code(file).encode() + b"\0")
    return digest.hexdigest()[:16]


def _code(file: Path) -> str:
    """What a module does: neither its comments nor its docstrings nor its line breaks change a number."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False) is not None:
            node.body[0] = ast.Pass()
    return ast.unparse(tree)


def _rounded(values) -> list:
    """Four digits are more than the seeds agree on."""
    return [value if isinstance(value, str) else float(f"{value:.4g}") for value in values]


def _short_lists(text: str) -> str:
    """Lists of numbers or names on one line each."""
    return re.sub(r"\[([^\[\]{}]*)\]", lambda m: f"[{', '.join(part.strip() for part in m[1].split(f',{chr(10)}'))}]", text)


if __name__ == "__main__":
    sys.exit(main())
