"""The demos as pages need them: picture, code, controls, and the modules that a live run fetches.

The numbers were recorded with PyTorch (`python -m docs.demos.record`); nothing is run here, so the site needs no torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from tools import figures
from tools.imports import needed
from tools.notebooks import demo_notebook
from tools.standalone import pieces

CODE = "catalog/code"  # where the modules lie on the site, below their own paths
FILES = "catalog/demos"  # each demo as one file, to be run elsewhere
DRAWING = ("tools/drawing.py", "tools/inert.py")
RUN = """

if __name__ == "__main__":
    picture = demo(**{control.name: control.start for control in CONTROLS})
    print(picture.title)
    for curve in picture.record("")["curves"]:
        print(f"{curve['name']}: {[round(value, 4) for value in curve['values'][0]]}")
"""


class Lab:
    """All demos of a project; a project without `docs/demos` has none."""

    def __init__(self, root: Path):
        self.root = root
        self.folder = root / "docs" / "demos"

    @cached_property
    def records(self) -> dict[str, dict]:
        """What the demos gave with PyTorch, by method."""
        return figures.load(self.folder / "data")

    @cached_property
    def torch_only(self) -> dict[str, str]:
        """Methods whose demo the browser's runtime cannot run, each with the reason."""
        file = self.folder / "torch_only.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}

    @cached_property
    def modules(self) -> dict[str, Path]:
        """Method -> its demo."""
        return {file.stem: file for file in sorted(self.folder.glob("*/*.py"))}

    def files(self, method: str) -> list[str]:
        """The paths of a demo and of every module of the project that it needs."""
        return [file.relative_to(self.root).as_posix() for file in needed(self.modules[method], self.root)]

    def published(self) -> Iterator[tuple[str, str]]:
        """(path below docs, text) of every module that a live run fetches, and of each demo as one file."""
        wanted = {*DRAWING, *(file for method in self.records for file in self.files(method))} if self.records else set()
        for file in sorted(wanted):
            yield f"{CODE}/{file}", (self.root / file).read_text(encoding="utf-8")
        for method, record in self.records.items():
            before, own = pieces(self.modules[method], self.root)
            yield f"{FILES}/{method}.py", before + own + RUN
            yield f"{FILES}/{method}.ipynb", demo_notebook(record["title"], record["reading"], before, own + RUN)

    def of(self, method: str) -> dict | None:
        """What the page of a method shows and hands to the live run."""
        if method not in self.records:
            return None
        record = self.records[method]
        return {
            "title": record["title"],
            "reading": record["reading"],
            "picture": figures.svg(record),
            "code": self.modules[method].read_text(encoding="utf-8"),
            "path": self.modules[method].relative_to(self.root).as_posix(),
            "files": " ".join([*DRAWING, *self.files(method)]),
            "controls": json.dumps(record["controls"]),
            "torch_only": self.torch_only.get(method),
        }
