"""Pictures of the whole field: topics by size, papers by venue and year, what the atlas covers, which method builds on which.

Plain Python writes SVG from the catalog. Colours are classes that the stylesheet fills in, so that one picture is right in
light and dark; the same catalog gives the same bytes. Everything that stands for records is a link, which a keyboard reaches.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from urllib.parse import urlencode

from markupsafe import Markup

from tools.catalog import Catalog
from tools.escape import text

WIDTH = 720
LETTER = 6.6  # width of a letter of the labels, in the picture's units
COVERED = [("papers", {}), ("code", {"code": "yes"}), ("implemented here", {"implementation": "yes"}), ("measured here", {"measured": "yes"})]
DATED = ("builds on", "refines")  # by which `python -m tools check` refuses circles and later ancestors
DIRECTED = (*DATED, "special case of")

Box = tuple[float, float, float, float]  # x, y, width, height


def picture(id: str, title: str, words: str, height: float, parts: Iterable[str], width: float = WIDTH) -> Markup:
    """An SVG whose links stay reachable: a group with a title and what it shows in words."""
    head = f'<svg class="field" viewBox="0 0 {width:g} {height:g}" width="{width:g}" role="group" aria-labelledby="{id}-title {id}-text">'
    return Markup("\n".join([head, f'<title id="{id}-title">{text(title)}</title><desc id="{id}-text">{text(words)}</desc>', *parts, "</svg>"]))


def link(address: str, label: str, *inside: str) -> str:
    return f'<a href="{text(address)}"><title>{text(label)}</title>{"".join(inside)}</a>'


def explore(kind: str, **filters: object) -> str:
    """The address of an explorer with filters set, from a page beside it."""
    return f"../{kind}/?{urlencode(filters)}" if filters else f"../{kind}/"


def shortened(label: str, width: float) -> str:
    """As much of a label as fits.

    Example:
        >>> shortened("Task vectors", 100), shortened("Task vectors", 60), shortened("Task vectors", 10)
        ('Task vectors', 'Task vec…', '')
    """
    room = int(width / LETTER)
    return label if len(label) <= room else f"{label[: room - 1].rstrip()}…" if room > 3 else ""


# --- topics by size ------------------------------------------------------------------------------------------------


def squarify(sizes: Sequence[float], box: Box) -> list[Box]:
    """Divide a box into boxes of these areas (in proportion, largest first), as square as they come (Bruls et al. 2000).

    Example:
        >>> [tuple(round(v, 2) for v in box) for box in squarify([6, 3, 3], (0, 0, 4, 3))]
        [(0, 0.0, 2.0, 3.0), (2.0, 0, 2.0, 1.5), (2.0, 1.5, 2.0, 1.5)]
    """
    x, y, width, height = box
    scale = width * height / sum(sizes)
    left, boxes = [size * scale for size in sizes], []
    while left:
        side = min(width, height)

        def worst(row: Sequence[float], side: float = side) -> float:
            """The most elongated of the boxes when these stand in a row along the shorter side."""
            thickness = sum(row) / side
            return max(max(area / thickness**2, thickness**2 / area) for area in row)

        count = 1
        while count < len(left) and worst(left[: count + 1]) <= worst(left[:count]):
            count += 1
        row, left = left[:count], left[count:]
        thickness, at = sum(row) / side, 0.0
        for area in row:
            length = area / thickness
            boxes.append((x, y + at, thickness, length) if width >= height else (x + at, y, length, thickness))
            at += length
        if width >= height:
            x, width = x + thickness, width - thickness
        else:
            y, height = y + thickness, height - thickness
    return boxes


def topics(catalog: Catalog) -> Markup:
    """Two levels of the taxonomy; the area of a topic is the number of times that a paper is filed in it or below it."""
    filed = Counter(node for paper in catalog.papers.values() for node in paper.taxonomy)
    sizes: Counter[str] = Counter()
    for node, count in filed.items():
        parts = node.split("/")
        for depth in range(1, len(parts) + 1):
            sizes["/".join(parts[:depth])] += count
    height, parts, said = 440, [], []
    tops = _by_size(catalog.children.get("", []), sizes)
    for n, (top, box) in enumerate(zip(tops, squarify([sizes[top] for top in tops], (0, 0, WIDTH, height)))):
        x, y, w, h = box
        count = len(catalog.papers_by_taxonomy[top])
        said.append(f"{catalog.taxonomy[top].name} {count}")
        strip = 20 if h > 46 else 0
        parts.append(_cell(catalog, top, box, f"top t{n % 4}", count, strip=bool(strip)))
        below = _by_size(catalog.children.get(top, []), sizes)
        own = filed[top]  # filed in the topic itself and in none below it
        if strip and below:
            shares = sorted([*(sizes[node] for node in below), *([own] if own else [])], reverse=True)
            rest = iter(squarify(shares, (x + 3, y + strip, w - 6, h - strip - 3)))
            named = [*below, *([None] if own else [])]
            named.sort(key=lambda node: -(sizes[node] if node else own))
            for node, inner in zip(named, rest):
                if node:
                    parts.append(_cell(catalog, node, inner, f"t{n % 4}", len(catalog.papers_by_taxonomy[node])))
    return picture("topics", "Topics by number of papers", f"Papers in each topic and below it: {', '.join(said)}.", height, parts)


def _by_size(nodes: Iterable[str], sizes: Mapping[str, int]) -> list[str]:
    return sorted((node for node in nodes if sizes[node]), key=lambda node: (-sizes[node], node))


def _cell(catalog: Catalog, node: str, box: Box, style: str, count: int, strip: bool = True) -> str:
    x, y, w, h = box
    name = catalog.taxonomy[node].name
    inside = [f'<rect class="{style}" x="{x + 1:.1f}" y="{y + 1:.1f}" width="{max(w - 2, 1):.1f}" height="{max(h - 2, 1):.1f}"/>']
    label = shortened(f"{name} {count}" if "top" in style or h < 34 else name, w - 10)
    if label and h >= 18 and strip:
        inside.append(f'<text x="{x + 6:.1f}" y="{y + 15:.1f}">{text(label)}</text>')
        if "top" not in style and h >= 34:
            inside.append(f'<text class="count" x="{x + 6:.1f}" y="{y + 30:.1f}">{count}</text>')
    return link(f"../taxonomy/{node}/", f"{name}: {count} papers", *inside)


# --- papers by venue and year --------------------------------------------------------------------------------------


def timeline(catalog: Catalog, rows: int = 14, columns: int = 13) -> Markup:
    """A dot for every venue and year; the venues with the most papers, and all others together; early years in one column."""
    counts = Counter((paper.venue, paper.year) for paper in catalog.papers.values())
    by_venue = Counter(paper.venue for paper in catalog.papers.values())
    total = Counter(paper.year for paper in catalog.papers.values())
    ranked = sorted(by_venue, key=lambda venue: (-by_venue[venue], venue))
    shown, others = ranked[:rows], ranked[rows:]
    first, last = max(min(total), max(total) - columns + 2), max(total)
    spans = [(year, year, str(year)) for year in range(first, last + 1)]
    if min(total) < first:
        spans.insert(0, (min(total), first - 1, f"to {first - 1}"))
    left, top, step = 170, 30, 27
    column = (WIDTH - left) / len(spans)
    parts = []
    for n, (low, high, label) in enumerate(spans):
        papers = sum(total[year] for year in range(low, high + 1))
        address = explore("papers", **{"from": low, "to": high}) if low < high else f"../years/{low}/"
        about = f"{papers} papers {f'up to {high}' if low < high else f'of {low}'}"
        parts.append(_linked_text(left + column * (n + 0.5), 16, label, address if papers else None, about))
    table = {
        venue: [sum(counts[member, year] for member in members for year in range(low, high + 1)) for low, high, _ in spans]
        for venue, members in [*((venue, [venue]) for venue in shown), *([(None, others)] if others else [])]
    }
    most = max(max(row) for row in table.values())
    for r, (venue, row) in enumerate(table.items()):
        y = top + step * (r + 0.5)
        label = f"{len(others)} other venues" if venue is None else catalog.venues[venue].short if venue in catalog.venues else venue
        address = f"../venues/{venue}/" if venue else "../venues/"
        parts.append(f'<path class="grid" d="M{left} {y:.1f}H{WIDTH}"/>')
        about = f"{label}: {sum(row)} papers"
        parts.append(_linked_text(left - 8, y + 4, shortened(label, left - 12), address, about, "end"))
        for n, ((low, high, when), count) in enumerate(zip(spans, row)):
            if not count:
                continue
            x, radius = left + column * (n + 0.5), 7 + 6 * math.sqrt(count / most)
            dot = f'<circle class="t0" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"/>'
            dot += f'<text x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle">{count}</text>'
            filters = ({"venue": venue} if venue else {}) | {"from": low, "to": high}
            to = explore("papers", **filters) if venue or low < high else f"../years/{low}/"
            parts.append(link(to, f"{label} {when}: {count} {'paper' if count == 1 else 'papers'}", dot))
    words = f"Papers by year: {', '.join(f'{total[year]} in {year}' for year in sorted(total))}."
    return picture("timeline", "Papers by venue and year", words, top + step * len(table) + 6, parts)


def _linked_text(x: float, y: float, label: str, address: str | None, about: str, anchor: str = "middle") -> str:
    inside = f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text(label)}</text>'
    return link(address, about, inside) if address else inside


# --- what the atlas covers -----------------------------------------------------------------------------------------


def coverage(catalog: Catalog, counts: Mapping[str, Sequence[int]]) -> Markup:
    """Bars by topic: its papers, and how many of them have code, an implementation here, and a measured run here."""
    left, top, step = 170, 30, 34
    column = (WIDTH - left) / len(COVERED)
    parts = [
        f'<text class="name" x="{left + column * n:.1f}" y="16">{text(name)}</text>' for n, (name, _) in enumerate(COVERED)
    ]
    most = max((row[0] for row in counts.values()), default=1)
    said = []
    for r, (node, row) in enumerate(counts.items()):
        y, name = top + step * r, catalog.taxonomy[node].name
        parts.append(_linked_text(left - 8, y + 17, shortened(name, left - 12), f"../taxonomy/{node}/", name, "end"))
        for n, ((what, filters), count) in enumerate(zip(COVERED, row)):
            x, width = left + column * n, (column - 50) * count / most
            bar = f'<rect class="ghost" x="{x:.1f}" y="{y + 4}" width="{(column - 50) * row[0] / most:.1f}" height="18"/>' if n else ""
            bar += f'<rect class="t{min(n, 3)}" x="{x:.1f}" y="{y + 4}" width="{width:.1f}" height="18"/>' if count else ""
            bar += f'<text x="{x + (column - 50) * row[0] / most + 5:.1f}" y="{y + 17}">{count}</text>'
            parts.append(link(explore("papers", topic=node, **filters), f"{name}: {count} {what if n else 'papers'}", bar))
        said.append(f"{name}: {row[0]} papers, {row[1]} with code, {row[2]} implemented here, {row[3]} measured here.")
    return picture("coverage", "What there is for the papers of each topic", " ".join(said), top + step * len(counts) + 4, parts)


def covered(catalog: Catalog, implemented: Collection[str], measured: Collection[str]) -> dict[str, list[int]]:
    """Top-level topic -> how many papers, with code, with an implementation, with a measured run."""
    found = {}
    for node in catalog.children.get("", []):
        papers = catalog.papers_by_taxonomy[node]
        made = [set(catalog.methods_by_paper.get(id, [])) for id in papers]
        code = sum(bool(catalog.papers[id].code) for id in papers)
        found[node] = [len(papers), code, *(sum(bool(m & set(some)) for m in made) for some in (implemented, measured))]
    return found


# --- which method builds on which ----------------------------------------------------------------------------------

NODE, ROW, GAP, TOP = 146, 26, 40, 34  # width of a method's box, distance of two, distance of columns, height of the years


def genealogy(catalog: Catalog, chapter: str, name: str) -> Markup:
    """The methods of a chapter from left to right by the year of their paper, those without one first, and lines for their relations.

    Methods of other chapters that they name, or that name them, stand beside them with a broken outline.
    """
    own = set(catalog.methods_by_chapter.get(chapter, []))
    edges = [
        (link.method, id, link.how)
        for id, method in sorted(catalog.methods.items())
        for link in method.related
        if link.method in catalog.methods and (id in own or link.method in own and link.how in DIRECTED)
    ]
    edges = [edge for edge in edges if edge[2] in DIRECTED or {edge[0], edge[1]} <= own]
    nodes = own | {end for first, second, _ in edges for end in (first, second)}
    columns = _columns(catalog, nodes, edges)
    places = _places(columns, edges)

    parts, years = [], defaultdict(list)
    for (year, _), members in columns.items():
        years[year].append(places[members[0]][0])
    for year, xs in years.items():
        parts.append(f'<text x="{min(xs)}" y="16">{year or "no paper"}</text><path class="grid" d="M{min(xs)} 23H{max(xs) + NODE}"/>')
    for first, second, how in sorted(edges, key=lambda edge: edge[2] in DIRECTED):
        parts.append(_line(places[first], places[second], how.replace(" ", "-")))
    for id in sorted(nodes, key=lambda id: places[id]):
        x, y = places[id]
        label = catalog.methods[id].name.split(" (")[0]
        box = f'<rect class="{"node" if id in own else "node other"}" x="{x}" y="{y - 10}" width="{NODE}" height="20" rx="3"/>'
        parts.append(link(f"../methods/{id}/", catalog.methods[id].name, box, f'<text x="{x + 6}" y="{y + 4}">{text(shortened(label, NODE - 8))}</text>'))
    said = [f"{catalog.methods[b].name} {how} {catalog.methods[a].name}." for a, b, how in edges if how in DIRECTED]
    width = max(x for x, _ in places.values()) + NODE + 14
    height = max(y for _, y in places.values()) + 18
    return picture(f"genealogy-{chapter}", f"{name}: which method builds on which", " ".join(said), height, parts, max(width, WIDTH / 2))


def _columns(catalog: Catalog, nodes: Collection[str], edges: Sequence[tuple[str, str, str]]) -> dict[tuple[int, int], list[str]]:
    """(year, depth within the year) -> methods: what builds on a method of its year stands right of it."""
    papers = {id: catalog.papers.get(catalog.methods[id].introduced_by or "") for id in nodes}
    year = {id: paper.first_known[0] if paper else 0 for id, paper in papers.items()}
    before = defaultdict(list)
    for first, second, how in edges:
        if how in DATED and year[first] == year[second]:
            before[second].append(first)
    depth = dict.fromkeys(nodes, 0)
    for _ in nodes:  # as often as a chain can be long; a circle, which the check refuses, ends with it
        deeper = {id: max((depth[other] + 1 for other in before[id]), default=0) for id in nodes}
        if deeper == depth:
            break
        depth = deeper

    columns = defaultdict(list)
    for id in sorted(nodes):
        columns[year[id], depth[id]].append(id)
    return dict(sorted(columns.items()))


def _places(columns: Mapping[tuple[int, int], list[str]], edges: Sequence[tuple[str, str, str]]) -> dict[str, tuple[int, int]]:
    """Where each method stands. Columns are sorted by where their neighbours stand, forth and back, which leaves few crossings."""
    beside = defaultdict(list)
    for first, second, how in edges:
        for one, other in ((first, second), (second, first)):
            beside[one] += [other] * (3 if how in DIRECTED else 1)
    tallest = max(map(len, columns.values()))
    height: dict[str, float] = {}
    for members in columns.values():
        height.update({id: (n + 0.5) * tallest / len(members) for n, id in enumerate(members)})
    for sweep in range(8):
        for members in list(columns.values())[:: -1 if sweep % 2 else 1]:
            mean = {id: sum(height[o] for o in beside[id]) / len(beside[id]) if beside[id] else height[id] for id in members}
            members.sort(key=lambda id: (mean[id], id))
            start = sum(mean.values()) / len(members) - (len(members) - 1) / 2
            start = min(max(start, 0.5), tallest - len(members) + 0.5)
            height.update({id: start + n for n, id in enumerate(members)})
    return {
        id: (c * (NODE + GAP), round(TOP + ROW * height[id]))
        for c, members in enumerate(columns.values())
        for id in members
    }


def _line(first: tuple[int, int], second: tuple[int, int], style: str) -> str:
    (x1, y1), (x2, y2) = sorted((first, second))
    if x1 == x2:  # two methods of one column: an arc at its right
        return f'<path class="{style}" d="M{x1 + NODE} {y1}q24 {(y2 - y1) // 2} 0 {y2 - y1}"/>'
    start, bend = x1 + NODE, GAP // 2 + 4
    return f'<path class="{style}" d="M{start} {y1}C{start + bend} {y1} {x2 - bend} {y2} {x2} {y2}"/>'
