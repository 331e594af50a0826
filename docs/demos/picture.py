"""What a demo is: controls, and a function of them that gives a picture's numbers and words.

A demo is a module `docs/demos/<chapter>/<method>.py` with `CONTROLS` and `demo(**controls) -> Picture`. It runs in three places:
`python -m docs.demos.record` keeps its numbers at the starting values, a test compares PyTorch with the browser's runtime, and
readers run and change it in the page. Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Control:
    """A slider: the keyword argument of `demo` that it sets, its ends, where it starts, and its step.

    Where all four are whole numbers, `demo` receives an int.
    """

    name: str
    low: float
    high: float
    start: float
    step: float


@dataclass(frozen=True)
class Picture:
    """The numbers of a drawing and its words.

    Attributes:
        title: what is drawn.
        reading: what to look for, one sentence.
        x: label of the horizontal axis.
        y: label of the vertical axis.
        series: heights by name, at most four; for "scatter" a pair of sequences, for "heat" the rows of a matrix.
        at: where the heights stand, numbers or names; the columns for "heat"; nothing for "scatter".
        kind: "line", "bar", "dot", "scatter" or "heat".
        log_y: a logarithmic vertical axis.
    """

    title: str
    reading: str
    x: str
    y: str
    series: Mapping[str, Sequence]
    at: Sequence[float] | Sequence[str] = ()
    kind: Literal["line", "bar", "dot", "scatter", "heat"] = "line"
    log_y: bool = False

    def record(self, method: str) -> dict:
        """As plain data, for the drawing; whatever could not be drawn is refused here."""
        if self.kind not in ("line", "bar", "dot", "scatter", "heat"):
            raise ValueError(f"kind is {self.kind!r}; it is one of line, bar, dot, scatter, heat")
        if not self.series or (self.kind != "heat" and len(self.series) > 4):
            raise ValueError(f"received {len(self.series)} series; from one to four can be told apart")
        curves = []
        for name, given in self.series.items():
            xs, ys = (_listed(part) for part in (given if self.kind == "scatter" else (self.at, given)))
            if not ys or len(xs) != len(ys):
                raise ValueError(f"{name!r} has {len(ys)} heights at {len(xs)} places; as many are needed, at least one")
            for value in ys + [x for x in xs if not isinstance(x, str)]:
                if not math.isfinite(value):
                    raise ValueError(f"{name!r} holds {value}, which cannot be drawn")
            curves.append({"name": name, "x": xs, "values": [ys]})
        words = {name: getattr(self, name) for name in ("title", "reading", "x", "y", "kind", "log_y")}
        return {"method": method} | words | {"curves": curves}


def _listed(values: Sequence) -> list:
    """Numbers as floats, names as they are; tensors and what else has `tolist` become lists, single tensors numbers."""
    values = values.tolist() if hasattr(values, "tolist") else values
    return [value if isinstance(value, str) else float(value) for value in values]


def numbers(record: dict) -> list[float]:
    """All heights of a record in order, and the places too where they were computed ("scatter")."""
    scattered = record["kind"] == "scatter"
    return [v for curve in record["curves"] for v in (curve["x"] if scattered else []) + curve["values"][0]]


def difference(recorded: dict, again: dict) -> float | None:
    """The largest difference between two records of one demo; None where they hold other series or other places."""
    shape = [(curve["name"], len(curve["x"])) for curve in recorded["curves"]]
    if shape != [(curve["name"], len(curve["x"])) for curve in again["curves"]] or recorded["kind"] != again["kind"]:
        return None
    return max(abs(a - b) for a, b in zip(numbers(recorded), numbers(again)))
