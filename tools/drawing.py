"""A drawing of numbers: a record in, SVG out, with the standard library alone.

The site draws with it from recorded numbers, and the pages draw with it in the browser. Colours are classes that the
stylesheet fills in, so that one picture is right in light and dark. The same record gives the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from tools.inert import inert as text

WIDTH, PLOT, LEFT, RIGHT = 480, 190, 46, 14  # of the drawing, the height of the plot, and its margins
Values = Sequence[float]


def mean_and_range(values: Values) -> tuple[float, float, float]:
    return math.fsum(values) / len(values), min(values), max(values)


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


# --- the drawing ---------------------------------------------------------------------------------------------------


def svg(record: dict) -> str:
    """The picture of a run, to stand in a page; its only words are the record's."""
    return heat(record) if record["kind"] == "heat" else plot(record)


def plot(record: dict) -> str:
    """Lines, bars, dots or scattered points between two axes."""
    curves, kind = record["curves"], record["kind"]
    summaries = [[mean_and_range(at) for at in zip(*curve["values"])] for curve in curves]
    top = 8 + 18 * len(curves) + 24  # below the key and the label
    bottom = top + PLOT
    right = WIDTH - RIGHT
    inner = right - LEFT

    low = min(value[1] for summary in summaries for value in summary)
    high = max(value[2] for summary in summaries for value in summary)
    logarithmic = record["log_y"] and low > 0
    from_zero = kind != "scatter" and (kind == "bar" or low < 0.6 * high) and low > -0.03 * high
    ticks = log_ticks(low, high) if logarithmic else linear_ticks(0 if from_zero else low, high)
    scale = math.log if logarithmic else float
    to_y = lambda v: bottom - PLOT * (scale(v) - scale(ticks[0])) / (scale(ticks[-1]) - scale(ticks[0]))  # noqa: E731
    foot = to_y(ticks[0] if logarithmic else min(max(ticks[0], 0), ticks[-1]))

    places = curves[0]["x"]
    if isinstance(places[0], str):
        positions = [LEFT + inner * (i + 0.5) / len(places) for i in range(len(places))]
        x_ticks = list(zip(positions, places))
    else:
        ends = [x for curve in curves for x in curve["x"]] if kind == "scatter" else [places[0], places[-1]]
        first, last = (ends[0] - 0.5, ends[0] + 0.5) if min(ends) == max(ends) else (min(ends), max(ends))
        margin = 6 if kind == "scatter" else inner / len(places) / 2 if kind in ("bar", "dot") else 0  # room for half a bar
        to_x = lambda v: LEFT + margin + (inner - 2 * margin) * (v - first) / (last - first)  # noqa: E731
        positions = [to_x(v) for v in places]
        x_ticks = [(to_x(v), plain(v)) for v in linear_ticks(first, last) if first <= v <= last]
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
        own = positions if isinstance(places[0], str) else [to_x(x) for x in curve["x"]]  # each curve has its own points
        if kind == "line":
            out += band(own, heights, n)
            out += dots(own, heights, n) if isinstance(places[0], str) else []
        elif kind == "scatter":
            out += (mark(x, y, n, small=len(own) > 15) for x, (y, _, _) in zip(own, heights))
        else:
            beside = [x + (n - (len(curves) + 1) / 2) * width for x in positions]
            out += bars(beside, heights, n, width, foot) if kind == "bar" else dots(beside, heights, n)
        out.append(key(kind, n) + f'<text x="{LEFT + 29}" y="{18 * n}">{text(curve["name"])}</text>')
    return _whole(record, height, in_words(record, summaries), out)


def heat(record: dict) -> str:
    """A matrix: a row for each curve, shaded by size, one colour for above zero and one for below; few cells say their number."""
    rows = [(curve["name"], curve["values"][0]) for curve in record["curves"]]
    columns = [x if isinstance(x, str) else plain(x) for x in record["curves"][0]["x"]]
    left = min(14 + 7 * max(len(name) for name, _ in rows), WIDTH // 3)
    inner = WIDTH - RIGHT - left
    wide = inner / len(columns)
    tall = max(14.0, min(wide, 34.0, 240 / len(rows)))
    top = 30 if record["x"] else 14
    size = max(abs(v) for _, values in rows for v in values) or 1.0
    worded = wide >= 31 and tall >= 16
    every = -(-max(len(name) for name in columns) * 8 // wide)  # so many columns share one label
    out = [f'<text class="name" x="{left}" y="14">{text(record["x"])}</text>'] if top == 30 else []
    for i, name in enumerate(columns):
        if name and i % max(every, 1) == 0:
            out.append(f'<text x="{left + wide * (i + 0.5):.1f}" y="{top + 12}" text-anchor="middle">{text(name)}</text>')
    top += 18
    for j, (name, values) in enumerate(rows):
        y = top + tall * j
        out.append(f'<text class="name" x="{left - 6}" y="{y + tall / 2 + 4:.1f}" text-anchor="end">{text(name)}</text>')
        for i, value in enumerate(values):
            x, shade = left + wide * i, f"{abs(value) / size:.2f}"
            kind = "s2" if value >= 0 else "s3"
            place = f'x="{x:.1f}" y="{y:.1f}" width="{wide - 1:.1f}" height="{tall - 1:.1f}"'
            out.append(f'<rect class="cell {kind}" {place} opacity="{shade}"/>')
            if worded:
                middle = f'x="{x + wide / 2:.1f}" y="{y + tall / 2 + 4:.1f}"'
                out.append(f'<text class="value" {middle} text-anchor="middle">{number(value, size)}</text>')
    height = round(top + tall * len(rows) + 4)
    low, high = min(min(values) for _, values in rows), max(max(values) for _, values in rows)
    words = [f"{record['y']} by {record['x']}, from {number(low)} to {number(high)}."]
    if len(rows) * len(columns) <= 100:
        words += [f"{name}: {', '.join(number(value, size) for value in values)}." for name, values in rows]
    return _whole(record, height, " ".join(words), out)


def _whole(record: dict, height: float, words: str, parts: list[str]) -> str:
    ids = [f"{'run' if 'seeds' in record else 'demo'}-{record['method']}-{part}" for part in ("title", "text")]
    head = f'<svg class="run" viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="{ids[0]} {ids[1]}">'
    said = f'<title id="{ids[0]}">{text(record["title"])}</title><desc id="{ids[1]}">{text(words)}</desc>'
    return "\n".join([head + said, *parts, "</svg>"])


def key(kind: str, n: int) -> str:
    """How a series looks, left of its name."""
    y = 18 * n - 4
    if kind == "scatter":
        return mark(LEFT + 11, y, n)
    if kind == "bar":
        return f'<rect class="s{n}" x="{LEFT}" y="{y - 5}" width="22" height="9"/>'
    line = f'<path class="s{n}" d="M{LEFT} {y}h22"/>'
    return f'<circle class="s{n}" cx="{LEFT + 11}" cy="{y}" r="4"/>' if kind == "dot" else line


def band(xs: list[float], heights: list[tuple], n: int) -> Iterator[str]:
    """The mean as a line, and all seeds as a band around it."""
    mean, low, high = ([f"{x:.1f} {at[column]:.1f}" for x, at in zip(xs, heights)] for column in range(3))
    if low != high:
        yield f'<path class="band s{n}" d="M{" ".join(high)}L{" ".join(low[::-1])}Z"/>'
    yield f'<path class="s{n}" d="M{" ".join(mean)}"/>'


def bars(xs: list[float], heights: list[tuple], n: int, width: float, foot: float) -> Iterator[str]:
    """The mean as a bar from zero, and all seeds as a whisker."""
    for x, (mean, low, high) in zip(xs, heights):
        y, size = min(mean, foot), abs(mean - foot)
        yield f'<rect class="s{n}" x="{x - width / 2 + 1:.1f}" y="{y:.1f}" width="{width - 2:.1f}" height="{size:.1f}"/>'
        if low != high:
            yield f'<path class="whisker" d="M{x:.1f} {low:.1f}V{high:.1f}"/>'


def dots(xs: list[float], heights: list[tuple], n: int) -> Iterator[str]:
    """The mean as a dot, and all seeds as a whisker."""
    for x, (mean, low, high) in zip(xs, heights):
        if low != high:
            yield f'<path class="whisker" d="M{x:.1f} {low:.1f}V{high:.1f}"/>'
        yield f'<circle class="s{n}" cx="{x:.1f}" cy="{mean:.1f}" r="4"/>'


def mark(x: float, y: float, n: int, small: bool = False) -> str:
    """A point of a series: its shape says which, as well as its colour; a first series of many points stays behind the others."""
    if n == 1:
        return f'<circle class="s1" cx="{x:.1f}" cy="{y:.1f}" r="{2 if small else 3.5}"/>'
    if n == 2:
        return f'<rect class="s2" x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7"/>'
    if n == 3:
        return f'<path class="mark s3" d="M{x:.1f} {y - 4.5:.1f}L{x + 4.5:.1f} {y + 3.5:.1f}H{x - 4.5:.1f}Z"/>'
    return f'<path class="mark s4" d="M{x - 4:.1f} {y - 4:.1f}l8 8M{x - 4:.1f} {y + 4:.1f}l8 -8"/>'


def in_words(record: dict, summaries: list[list[tuple]]) -> str:
    """What the picture shows, for those who do not see it: every mean of a few, the ends and the highest of many."""
    seeds = f", mean of seeds {', '.join(map(str, record['seeds']))}" if "seeds" in record else ""
    out = [f"{record['y']} by {record['x']}{seeds}."]
    for curve, summary in zip(record["curves"], summaries):
        means = [mean for mean, _, _ in summary]
        if record["kind"] == "scatter":
            across = f"{plain(min(curve['x']))} to {plain(max(curve['x']))}"
            out.append(f"{curve['name']}: {len(means)} points, {across} across, {number(min(means))} to {number(max(means))} up.")
            continue
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
