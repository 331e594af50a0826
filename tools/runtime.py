"""`python -m tools runtime FOLDER`: put the browser's Python into the built site, so that the demos can be run in the page.

FOLDER holds Pyodide 314.0.7 (the files of its npm package, or of its distribution), the NumPy wheel that its lock file names,
and the wheel of borch 1.14.1. Every file is compared with the hash that stands here or in the lock file; nothing is copied
unless all are right. The site then serves its runtime itself: no page asks another host for anything.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from pathlib import Path

BORCH = {"pyborch-1.14.1-py3-none-any.whl": "80809bb34907f5d1a31e919c0affd228f16baa871592a24815d812298992c19c"}
PYODIDE = {  # of the npm package pyodide 314.0.7
    "pyodide.mjs": "6f1d60f7bf529beb300f0f47983c921d3982363640ba20af0e38efdddbc66109",
    "pyodide.asm.mjs": "f7cdc8ece80678ceb712f8e65ebe6d3a83203a180c399865f49612a051693635",
    "pyodide.asm.wasm": "cc36e3cab04fdfc9a63ff13eb52eae2b911bf46c025cc7b281f394bd3de1d5e6",
    "python_stdlib.zip": "fa1957e5777068fc4f7437f96d860ae2fbe9c19732ba06c84e004ec16dd7dd7a",
    "pyodide-lock.json": "5dc2fc119108bc148c7457dc86e7675b5c87e1cafd420b9c34c1eaef7b36c010",
}
LAB = Path("assets/lab")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools runtime", description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where Pyodide, NumPy's wheel and borch's wheel are")
    parser.add_argument("--site", type=Path, default=Path("site"), help="the built site (default: site)")
    arguments = parser.parse_args(argv)
    try:
        size = install(arguments.folder, arguments.site)
    except ValueError as error:
        print(f"runtime: {error}", file=sys.stderr)
        return 1
    print(f"the pages of {arguments.site} can run their demos; the runtime has {size / 1e6:.1f} MB")
    return 0


def install(folder: Path, site: Path, sums: dict[str, str] = PYODIDE) -> int:
    """Check and copy all files, and name them in the site's runtime.json; how many bytes a reader's first run loads."""
    if not (site / LAB / "runtime.json").is_file():
        raise ValueError(f"{site} holds no built site; run `make build` first")
    sums = sums | BORCH
    if problems := [problem for name in sums if (problem := _problem(folder / name, sums[name]))]:
        raise ValueError("; ".join(problems))
    lock = json.loads((folder / "pyodide-lock.json").read_text(encoding="utf-8"))
    for package in _with_dependencies("numpy", lock["packages"]):
        sums[package["file_name"]] = package["sha256"]
        if problem := _problem(folder / package["file_name"], package["sha256"]):
            raise ValueError(problem)
    target = site / LAB / "runtime"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for name in sums:
        shutil.copyfile(folder / name, target / name)
    size = sum((target / name).stat().st_size for name in sums)
    wheels = [{"file": name, "sha256": sha256} for name, sha256 in BORCH.items()]
    settings = {"index": f"{(LAB / 'runtime').as_posix()}/", "wheels": wheels, "bytes": size}
    (site / LAB / "runtime.json").write_text(json.dumps(settings) + "\n", encoding="utf-8")
    return size


def _with_dependencies(name: str, packages: dict) -> list[dict]:
    found, waiting = {}, [name]
    while waiting:
        if (one := waiting.pop()) not in found:
            found[one] = packages[one]
            waiting += packages[one]["depends"]
    return list(found.values())


def _problem(file: Path, sha256: str) -> str | None:
    if not file.is_file():
        return f"{file} is missing"
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    return None if found == sha256 else f"{file} has the SHA-256 {found}, expected {sha256}"


if __name__ == "__main__":
    sys.exit(main())
