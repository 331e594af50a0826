"""Pictures of measured runs: JSON in, SVG out, with plain Python.

The numbers come from `python -m docs.figures.measure`; here they only become lines, bands, bars and cells of a table. Colours
are classes that the stylesheet fills in, so that one picture is right in light and dark. The same file gives the same bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from markupsafe import Markup

from tools.escape import text

WIDTH, PLOT, LEFT, RIGHT = 480, 190, 46, 14  # of the drawing, the height of the plot, and its margins
Values = Sequence[float]


def load(folder: Path) -> dict[str, dict]:
    """Method -> the record of its run."""
    records = (json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json")))
    return {record["method"]: record for record in records}


def mean_and_range(values: Values) -> tuple[float, float, float]:
    return math.fsum(values) / len(values), min(values), max(values)


# --- numbers as text -----------------------------------------------------------------------------------------------


def number(value: float, like: float | None = None) -> str:
    """As many digits as are worth showing beside a number as large as `like`.

    Example:
        >>> number(0.5123), number(0.0123), number(0, like=0.5), number(2.1e-8), number(-31.27)
        ('0.51', '0.012', '0.00', '2.1·10⁻⁸', '−31.3')
    """
    size = abs(value if like is None else like)
    if 0 < size < 0.001:
        mantissa, _, exponent = f"{value:.1e}".partition("e")
        raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        return f"{mantissa}·10{raised}" if value else "0"
    places = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 0.1 else 3 if size else 0
    shown = f"{value:.{places}f}"
    return (shown.removeprefix("-") if float(shown) == 0 else shown).replace("-", "−")


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


# --- the drawing ---------------------------------------------------------------------------------------------------


def svg(record: dict) -> Markup:
    """The picture of a run, to stand in a page; its only words are the record's."""
    curves, kind, logarithmic = record["curves"], record["kind"], record["log_y"]
    summaries = [[mean_and_range(at) for at in zip(*curve["values"])] for curve in curves]
    top = 8 + 18 * len(curves) + 24  # below the key and the label
    bottom = top + PLOT
    right = WIDTH - RIGHT
    inner = right - LEFT

    low = min(value[1] for summary in summaries for value in summary)
    high = max(value[2] for summary in summaries for value in summary)
    from_zero = (kind == "bar" or low < 0.6 * high) and low > -0.03 * high
    ticks = log_ticks(low, high) if logarithmic else linear_ticks(0 if from_zero else low, high)
    scale = math.log if logarithmic else float
    to_y = lambda v: bottom - PLOT * (scale(v) - scale(ticks[0])) / (scale(ticks[-1]) - scale(ticks[0]))  # noqa: E731
    foot = to_y(ticks[0] if logarithmic else max(ticks[0], 0))

    places = curves[0]["x"]
    named = isinstance(places[0], str)
    if named:
        positions = [LEFT + inner * (i + 0.5) / len(places) for i in range(len(places))]
        x_ticks = list(zip(positions, places))
    else:
        to_x = lambda v: LEFT + inner * (v - places[0]) / (places[-1] - places[0])  # noqa: E731
        x_ticks = [(to_x(v), plain(v)) for v in linear_ticks(places[0], places[-1]) if places[0] <= v <= places[-1]]
    crowded = any(8 * len(name) > inner / len(x_ticks) for _, name in x_ticks)
    height = bottom + 42 + 14 * crowded

    out = []
    for tick in ticks:
        out.append(f'<path class="grid" d="M{LEFT} {to_y(tick):.1f}H{right}"/>')
        out.append(f'<text x="{LEFT - 6}" y="{to_y(tick) + 4:.1f}" text-anchor="end">{plain(tick)}</text>')
    for i, (x, name) in enumerate(x_ticks):
        out.append(f'<text x="{x:.1f}" y="{bottom + 17 + 14 * (crowded and i % 2)}" text-anchor="middle">{text(name)}</text>')
    out.append(f'<path class="axis" d="M{LEFT} {foot:.1f}H{right}"/>')
    out.append(f'<text class="name" x="{LEFT}" y="{top - 12}">{text(record["y"])}</text>')
    out.append(f'<text class="name" x="{right}" y="{height - 6}" text-anchor="end">{text(record["x"])}</text>')

    width = inner / len(places) * 0.7 / len(curves)
    for n, (curve, summary) in enumerate(zip(curves, summaries), start=1):
        heights = [tuple(to_y(value) for value in at) for at in summary]
        if kind == "line":
            own = positions if named else [to_x(x) for x in curve["x"]]  # curves may have other numbers of points
            out += band(own, heights, n)
            out += dots(own, heights, n) if named else []
        else:
            beside = [x + (n - (len(curves) + 1) / 2) * width for x in positions]
            out += bars(beside, heights, n, width, foot) if kind == "bar" else dots(beside, heights, n)
        out.append(key(kind, n) + f'<text x="{LEFT + 29}" y="{18 * n}">{text(curve["name"])}</text>')

    ids = [f"run-{record['method']}-{part}" for part in ("title", "text")]
    head = f'<svg class="run" viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="{ids[0]} {ids[1]}">'
    words = f'<title id="{ids[0]}">{text(record["title"])}</title><desc id="{ids[1]}">{text(in_words(record, summaries))}</desc>'
    return Markup("\n".join([head + words, *out, "</svg>"]))


def key(kind: str, n: int) -> str:
    """How a series looks, left of its name."""
    y = 18 * n - 4
    if kind == "bar":
        return f'<rect class="s{n}" x="{LEFT}" y="{y - 5}" width="22" height="9"/>'
    line = f'<path class="s{n}" d="M{LEFT} {y}h22"/>'
    return f'<circle class="s{n}" cx="{LEFT + 11}" cy="{y}" r="4"/>' if kind == "dot" else line


def band(xs: list[float], heights: list[tuple], n: int) -> Iterator[str]:
    """The mean as a line, and all seeds as a band around it."""
    mean, low, high = ([f"{x:.1f} {at[column]:.1f}" for x, at in zip(xs, heights)] for column in range(3))
    yield f'<path class="band s{n}" d="M{" ".join(high)}L{" ".join(low[::-1])}Z"/>'
    yield f'<path class="s{n}" d="M{" ".join(mean)}"/>'


def bars(xs: list[float], heights: list[tuple], n: int, width: float, foot: float) -> Iterator[str]:
    """The mean as a bar from zero, and all seeds as a whisker."""
    for x, (mean, low, high) in zip(xs, heights):
        y, size = min(mean, foot), abs(mean - foot)
        yield f'<rect class="s{n}" x="{x - width / 2 + 1:.1f}" y="{y:.1f}" width="{width - 2:.1f}" height="{size:.1f}"/>'
        yield f'<path class="whisker" d="M{x:.1f} {low:.1f}V{high:.1f}"/>'


def dots(xs: list[float], heights: list[tuple], n: int) -> Iterator[str]:
    """The mean as a dot, and all seeds as a whisker."""
    for x, (mean, low, high) in zip(xs, heights):
        yield f'<path class="whisker" d="M{x:.1f} {low:.1f}V{high:.1f}"/>'
        yield f'<circle class="s{n}" cx="{x:.1f}" cy="{mean:.1f}" r="4"/>'


def in_words(record: dict, summaries: list[list[tuple]]) -> str:
    """What the picture shows, for those who do not see it: every mean of a few, the ends and the highest of many."""
    out = [f"{record['y']} by {record['x']}, mean of seeds {', '.join(map(str, record['seeds']))}."]
    for curve, summary in zip(record["curves"], summaries):
        means = [mean for mean, _, _ in summary]
        places = [x if isinstance(x, str) else plain(x) for x in curve["x"]]
        peak = means.index(max(means))
        shown = range(len(means)) if len(means) <= 8 else sorted({0, peak, len(means) - 1})
        out.append(f"{curve['name']}: {', '.join(f'{number(means[i])} at {places[i]}' for i in shown)}.")
    return " ".join(out)


# --- axes ----------------------------------------------------------------------------------------------------------


def linear_ticks(low: float, high: float) -> list[float]:
    """Round numbers that enclose an interval, about five.

    Example:
        >>> linear_ticks(0, 0.59), linear_ticks(0, 1), linear_ticks(-0.2, 0.75)
        ([0.0, 0.2, 0.4, 0.6], [0.0, 0.25, 0.5, 0.75, 1.0], [-0.25, 0.0, 0.25, 0.5, 0.75])
    """
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if span / (m * power) <= 4.6)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten that enclose an interval, with 2 and 5 where there are few.

    Example:
        >>> log_ticks(3e-5, 0.2), log_ticks(0.3, 4)
        ([1e-05, 0.0001, 0.001, 0.01, 0.1, 1.0], [0.2, 0.5, 1.0, 2.0, 5.0])
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    if last - first > 2:
        return [float(f"1e{i}") for i in range(first, last + 1)]
    rounds = [float(f"{m}e{i}") for i in range(first, last + 1) for m in (1, 2, 5)]
    start = max(i for i, value in enumerate(rounds) if value <= low)
    end = min(i for i, value in enumerate(rounds) if value >= high)
    return rounds[start : end + 1]


def plain(value: float) -> str:
    """A tick, as short as it is exact.

    Example:
        >>> plain(0.25), plain(1.0), plain(-0.5), plain(1e-05)
        ('0.25', '1', '−0.5', '10⁻⁵')
    """
    if 0 < abs(value) < 0.001:
        return number(value).removeprefix("1.0·")
    return f"{value:.6g}".replace("-", "−")
