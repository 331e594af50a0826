"""The toy catalog as a small project on disk, with code beside it, for a test to break."""

from __future__ import annotations

import shutil
from pathlib import Path

from tools.__main__ import main

TOY = Path(__file__).parents[1] / "toy_catalog"

MODULES = {
    "task_arithmetic": '"""Task arithmetic (ilharco2023task)."""\n\n\ndef task_arithmetic(base):\n    return base\n',
    "ties_merging": '"""TIES-Merging (yadav2023ties)."""\n\n\ndef ties_merging(base):\n    return base\n',
}
TESTS = {
    "task_arithmetic": "def test_one_model_is_returned():\n    pass\n",
    "ties_merging": "def test_sign_is_elected_by_mass_and_not_by_count():\n    pass\n",
}


def make_project(folder: Path) -> Path:
    """Write catalog/, reference_impls/ and tests/ into `folder`; the result has no problems."""
    shutil.copytree(TOY, folder / "catalog")
    for name, text in MODULES.items():
        write(folder, f"reference_impls/task_vectors/{name}.py", text)
    for name, text in TESTS.items():
        write(folder, f"tests/methods/task_vectors/test_{name}.py", text)
    assert main(["fmt", "--catalog", str(folder / "catalog")]) == 0
    return folder


def write(folder: Path, path: str, text: str) -> None:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text(text, encoding="utf-8")


def replace(folder: Path, path: str, old: str, new: str) -> None:
    """Replace one passage; it must be there exactly once."""
    text = (folder / path).read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in {path}"
    write(folder, path, text.replace(old, new))
