"""What a figure is: words that stay, and what one seed of its run gives.

A figure is a module `docs/figures/<chapter>/<method>.py` with a `FIGURE` and a function `measure(seed) -> Run`; it may have
`recover() -> dict`, how often a known permutation was found. `python -m docs.figures.measure` runs it and keeps the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from reference_impls.core.paths import LossCurve


@dataclass(frozen=True)
class Figure:
    """The words of a figure. They hold no measured numbers: those come from the run.

    Attributes:
        title: what is drawn.
        setting: networks, data, and the options that are not defaults.
        x: label of the horizontal axis.
        y: label of the vertical axis.
        reading: what to look for, one sentence.
        kind: "line" over numbers or over named positions, "bar" and "dot" over named positions.
        log_y: a logarithmic vertical axis.
    """

    title: str
    setting: str
    x: str
    y: str
    reading: str
    kind: Literal["line", "bar", "dot"] = "line"
    log_y: bool = False


@dataclass(frozen=True)
class Run:
    """What one seed gives: curves by name, positions and heights; and a table, row by row."""

    curves: Mapping[str, tuple[Sequence, Sequence[float]]]
    table: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def points(curve: LossCurve) -> tuple[list[float], list[float]]:
    return curve.ts.tolist(), curve.losses.tolist()


def resampled(curve: LossCurve, num_points: int = 41) -> LossCurve:
    """A curve whose positions differ from seed to seed, on evenly spaced positions."""
    ts = torch.linspace(0, 1, num_points, dtype=torch.float64)
    right = torch.searchsorted(curve.ts, ts).clamp(1, len(curve.ts) - 1)
    t0, t1 = curve.ts[right - 1], curve.ts[right]
    share = (ts - t0) / (t1 - t0)
    return LossCurve(ts, (1 - share) * curve.losses[right - 1] + share * curve.losses[right])
