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
    spread = "" if low == high else f'<span class="by">{number(low, size)} to {number(high, size)}</span>'
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
        shown.append(Markup(f'×{ratio:{".0f" if ratio >= 10 else ".1f" if ratio >= 0.95 else ".2f"}}<span class="by">{_seconds(mine)}</span>'))
    return shown + [Markup("–")] * (widths - len(shown))


def _seconds(value: float) -> str:
    return f"{value:.0f} s" if value >= 10 else f"{value:.1f} s" if value >= 1 else f"{value:.2f} s" if value >= 0.1 else f"{1000 * value:.0f} ms"


# --- the drawing ---------------------------------------------------------------------------------------------------


def svg(record: dict) -> Markup:
    """The picture of a run, to stand in a page; its only words are the record's."""
    curves, kind = record["curves"], record["kind"]
    named = isinstance(curves[0]["x"][0], str)
    summaries = [[mean_and_range(at) for at in zip(*curve["values"])] for curve in curves]
    top = 8 + 18 * len(curves) + 24
    bottom = top + PLOT
    height = bottom + 42

    low = min(value[1] for summary in summaries for value in summary)
    high = max(value[2] for summary in summaries for value in summary)
    if record["log_y"]:
        ticks = log_ticks(low, high)
        to_y = lambda v: bottom - PLOT * (math.log(v) - math.log(ticks[0])) / (math.log(ticks[-1]) - math.log(ticks[0]))  # noqa: E731
    else:
        ticks = linear_ticks(min(low, 0) if kind == "bar" or low < 0.6 * high else low, high)
        to_y = lambda v: bottom - PLOT * (v - ticks[0]) / (ticks[-1] - ticks[0])  # noqa: E731

    inner = WIDTH - LEFT - RIGHT
    if named:
        places = curves[0]["x"]
        to_x = lambda i: LEFT + inner * (i + 0.5) / len(places)  # noqa: E731
        x_ticks = [(to_x(i), name) for i, name in enumerate(places)]
    else:
        first, last = curves[0]["x"][0], curves[0]["x"][-1]
        to_x = lambda v: LEFT + inner * (v - first) / (last - first)  # noqa: E731
        x_ticks = [(to_x(v), plain(v)) for v in linear_ticks(first, last) if first <= v <= last]

    out = []
    for tick in ticks:
        y = to_y(tick)
        out.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        out.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{plain(tick)}</text>')
    lowered = named and any(7 * len(name) > inner / len(x_ticks) for _, name in x_ticks)
    for i, (x, name) in enumerate(x_ticks):
        drop = 14 * (i % 2) if lowered else 0
        out.append(f'<text x="{x:.1f}" y="{bottom + 17 + drop}" text-anchor="middle">{text(name)}</text>')
    height += 14 * lowered
    out.append(f'<path class="axis" d="M{LEFT} {to_y(max(ticks[0], 0) if not record["log_y"] else ticks[0]):.1f}H{WIDTH - RIGHT}"/>')
    out.append(f'<text class="name" x="{LEFT}" y="{top - 12}">{text(record["y"])}</text>')
    out.append(f'<text class="name" x="{WIDTH - RIGHT}" y="{height - 6}" text-anchor="end">{text(record["x"])}</text>')

    for n, (curve, summary) in enumerate(zip(curves, summaries), start=1):
        xs = [to_x(i if named else x) for i, x in enumerate(curve["x"])]
        marks = bars if kind == "bar" else dots if kind == "dot" else band
        shift = (n - (len(curves) + 1) / 2) / len(curves) * (inner / len(xs) * 0.7)
        out += marks(xs if kind == "line" else [x + shift for x in xs], summary, to_y, inner / len(xs) * 0.7 / len(curves), n, ticks[0])
        if kind == "line" and named:
            out += dots(xs, summary, to_y, 0, n, ticks[0])
        y = 18 * n
        key = f'<rect class="s{n}" x="{LEFT}" y="{y - 9}" width="22" height="9"/>' if kind == "bar" else ""
        key = key or (f'<circle class="s{n}" cx="{LEFT + 11}" cy="{y - 4}" r="4"/>' if kind == "dot" else f'<path class="s{n}" d="M{LEFT} {y - 4}h22"/>')
        out.append(f'{key}<text x="{LEFT + 29}" y="{y}">{text(curve["name"])}</text>')

    ids = [f"run-{record['method']}-{part}" for part in ("title", "text")]
    head = f'<svg class="run" viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="{ids[0]} {ids[1]}">'
    words = f'<title id="{ids[0]}">{text(record["title"])}</title><desc id="{ids[1]}">{text(in_words(record, summaries))}</desc>'
    return Markup("\n".join([head + words, *out, "</svg>"]))


def band(xs: list[float], summary: list[tuple], to_y, width: float, n: int, floor: float) -> Iterator[str]:
    """The mean as a line, and all seeds as a band around it."""
    there = " ".join(f"{x:.1f} {to_y(high):.1f}" for x, (_, _, high) in zip(xs, summary))
    back = " ".join(f"{x:.1f} {to_y(low):.1f}" for x, (_, low, _) in reversed(list(zip(xs, summary))))
    yield f'<path class="band s{n}" d="M{there}L{back}Z"/>'
    yield f'<path class="s{n}" d="M{" ".join(f"{x:.1f} {to_y(mean):.1f}" for x, (mean, _, _) in zip(xs, summary))}"/>'


def bars(xs: list[float], summary: list[tuple], to_y, width: float, n: int, floor: float) -> Iterator[str]:
    """The mean as a bar from zero, and all seeds as a whisker."""
    for x, (mean, low, high) in zip(xs, summary):
        top, foot = sorted((to_y(mean), to_y(max(floor, 0))))
        yield f'<rect class="s{n}" x="{x - width / 2 + 1:.1f}" y="{top:.1f}" width="{max(width - 2, 1):.1f}" height="{foot - top:.1f}"/>'
        yield f'<path class="whisker" d="M{x:.1f} {to_y(low):.1f}V{to_y(high):.1f}"/>'


def dots(xs: list[float], summary: list[tuple], to_y, width: float, n: int, floor: float) -> Iterator[str]:
    for x, (mean, low, high) in zip(xs, summary):
        yield f'<path class="whisker s{n}" d="M{x:.1f} {to_y(low):.1f}V{to_y(high):.1f}"/>'
        yield f'<circle class="s{n}" cx="{x:.1f}" cy="{to_y(mean):.1f}" r="4"/>'


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
