"""Run the demos with PyTorch and keep their numbers: `python -m docs.demos.record [method ...]`.

Each demo runs once at the starting values of its controls, with one thread, and its numbers go to
`docs/demos/data/<method>.json`; the site draws from these files alone, and a page compares its live run with them. Only demos
are run whose modules changed, their own or any that they import; `--all` runs every one.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import sys
import time
from pathlib import Path

from docs.figures.measure import _short_lists, fingerprint

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DATA = HERE / "data"
LIMIT = 5.0  # seconds: a reader waits for it


def demos() -> dict[str, Path]:
    """Method -> the module of its demo, found by listing files."""
    return {file.stem: file for file in sorted(HERE.glob("*/*.py"))}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m docs.demos.record", description=__doc__.partition("\n")[0])
    parser.add_argument("methods", nargs="*", help="methods to record (default: all whose modules changed)")
    parser.add_argument("--all", action="store_true", help="record also what has not changed")
    arguments = parser.parse_args(argv)
    known = demos()
    if unknown := sorted(set(arguments.methods) - set(known)):
        parser.error(f"no demo for {', '.join(unknown)}; there are {', '.join(known)}")

    import torch

    torch.set_num_threads(1)
    for method in arguments.methods or known:
        file = DATA / f"{method}.json"
        recorded = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        if not arguments.all and recorded.get("fingerprint") == fingerprint(known[method]):
            continue
        began = time.perf_counter()
        record = run(method) | {"fingerprint": fingerprint(known[method])}
        DATA.mkdir(exist_ok=True)
        file.write_text(_short_lists(json.dumps(record, indent=1, ensure_ascii=False)) + "\n", encoding="utf-8")
        seconds = time.perf_counter() - began
        print(f"{method}: {seconds:.1f} s{' (too slow for a page)' if seconds > LIMIT else ''}", flush=True)
    return 0


def run(method: str) -> dict:
    """One demo at its starting values: words, numbers, controls."""
    module = importlib.import_module(".".join(demos()[method].relative_to(ROOT).with_suffix("").parts))
    picture = module.demo(**{control.name: control.start for control in module.CONTROLS}).record(method)
    for curve in picture["curves"]:
        curve["x"] = [x if isinstance(x, str) else _rounded(x) for x in curve["x"]]
        curve["values"] = [[_rounded(value) for value in curve["values"][0]]]
    return picture | {"controls": [dataclasses.asdict(control) for control in module.CONTROLS]}


def _rounded(value: float) -> float:
    """The digits that float32 has."""
    return float(f"{value:.7g}")


if __name__ == "__main__":
    sys.exit(main())
