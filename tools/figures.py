"""Pictures and tables of measured runs, from the numbers of `python -m docs.figures.measure` and `docs.demos.record`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from tools import drawing
from tools.drawing import Values, mean_and_range, number


def load(folder: Path) -> dict[str, dict]:
    """Method -> the record of its run."""
    records = (json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json")))
    return {record["method"]: record for record in records}


# --- numbers as text -----------------------------------------------------------------------------------------------


def cell(values: Values) -> Markup:
    """Mean, and lowest to highest, for a table."""
    mean, low, high = mean_and_range(values)
    size = max(abs(low), abs(high))
    ends = number(low, size), number(high, size)
    spread = "" if ends[0] == ends[1] else f'<span class="by">{ends[0]} to {ends[1]}</span>'
    return Markup(f"{number(mean, size)}{spread}")


def tables(record: dict) -> list[tuple[list[str], list[tuple[str, list[Markup]]]]]:
    """(columns, rows of a name and cells): neighbouring rows that share a column share a table."""
    out: list[tuple[list[str], list[dict]]] = []
    for row in record["table"]:
        columns = [entry["name"] for entry in row["cells"]]
        if not out or not set(columns) & set(out[-1][0]):
            out.append(([], []))
        out[-1][0].extend(column for column in columns if column not in out[-1][0])
        out[-1][1].append(row)
    filled = []
    for columns, rows in out:
        by_name = [(row["name"], {entry["name"]: cell(entry["values"]) for entry in row["cells"]}) for row in rows]
        filled.append((columns, [(name, [cells.get(column, Markup("")) for column in columns]) for name, cells in by_name]))
    return filled


def costs(seconds: Sequence[float], reference: Sequence[float], widths: int) -> list[Markup]:
    """For every width the ratio to the reference, and the seconds themselves; a dash where nothing was measured.

    Example:
        >>> [str(c) for c in costs([0.3, 40], [0.1, 1.6], 3)]
        ['×3.0<span class="by">0.30 s</span>', '×25<span class="by">40 s</span>', '–']
    """
    shown = []
    for mine, theirs in zip(seconds, reference):
        ratio = mine / theirs
        places = 0 if ratio >= 10 else 1 if ratio >= 0.95 else 2
        shown.append(Markup(f'×{ratio:.{places}f}<span class="by">{_seconds(mine)}</span>'))
    return shown + [Markup("–")] * (widths - len(shown))


def _seconds(value: float) -> str:
    return f"{1000 * value:.0f} ms" if value < 0.1 else f"{value:.{0 if value >= 10 else 1 if value >= 1 else 2}f} s"


def svg(record: dict) -> Markup:
    """The picture of a run, to stand in a page; its only words are the record's."""
    return Markup(drawing.svg(record))
