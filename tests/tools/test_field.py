"""The pictures of the field: right in what they show, small, the same twice, and every record in them a link."""

import math
import re
from collections import Counter
from html import unescape
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tools.generate import make_catalog
from tools import field
from tools.catalog import load
from tools.pages import Pages

ROOT = Path(__file__).parents[2]
CATALOG = load(ROOT)
PAGES = Pages(CATALOG)
GENEALOGIES = {chapter["id"]: field.genealogy(CATALOG, chapter["id"], chapter["name"]) for chapter in PAGES.chapters}
PICTURES = {
    "topics": field.topics(CATALOG),
    "timeline": field.timeline(CATALOG),
    "coverage": field.coverage(CATALOG, field.covered(CATALOG, PAGES.implementations, PAGES.runs)),
    **GENEALOGIES,
}


@given(st.lists(st.integers(1, 200), min_size=1, max_size=40), st.integers(50, 900), st.integers(50, 900))
def test_a_treemap_fills_its_box_with_the_right_areas(sizes, width, height):
    sizes = sorted(sizes, reverse=True)
    boxes = field.squarify(sizes, (0, 0, width, height))
    assert len(boxes) == len(sizes)
    for size, (x, y, w, h) in zip(sizes, boxes):
        assert math.isclose(w * h, size / sum(sizes) * width * height, rel_tol=1e-6)
        assert -1e-6 <= x and x + w <= width + 1e-6 and -1e-6 <= y and y + h <= height + 1e-6
    for n, (x, y, w, h) in enumerate(boxes):
        for a, b, c, d in boxes[:n]:
            apart = min(x + w, a + c) - max(x, a) <= 1e-6 or min(y + h, b + d) - max(y, b) <= 1e-6
            assert apart, "two boxes overlap"


def test_a_treemap_is_squarer_than_slices():
    boxes = field.squarify([6, 6, 4, 3, 2, 2, 1], (0, 0, 6, 4))  # the example of Bruls, Huizing and van Wijk (2000)
    assert [tuple(round(v, 2) for v in box) for box in boxes[:3]] == [(0, 0, 3, 2), (0, 2, 3, 2), (3, 0, 1.71, 2.33)]
    assert max(max(w / h, h / w) for _, _, w, h in boxes) < 3


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_small_and_says_what_it_shows(name):
    svg = PICTURES[name]
    assert len(svg.encode()) < 40_000
    assert 'role="group"' in svg and "<title" in svg and "style=" not in svg and "<script" not in svg
    assert len(re.search(r"<desc[^>]*>(.*?)</desc>", svg, re.DOTALL)[1]) > 60


def test_the_same_catalog_gives_the_same_bytes():
    again = load(ROOT)
    assert field.topics(again) == PICTURES["topics"] and field.timeline(again) == PICTURES["timeline"]
    for id, svg in GENEALOGIES.items():
        assert field.genealogy(again, id, next(c["name"] for c in PAGES.chapters if c["id"] == id)) == svg


def links(svg):
    return re.findall(r'<a href="([^"]*)"><title>([^<]*)</title>', unescape(svg))


def test_the_treemap_shows_every_topic_of_two_levels_with_its_papers():
    shown = {address.removeprefix("../taxonomy/").removesuffix("/"): title for address, title in links(PICTURES["topics"])}
    assert set(shown) == {node for node in CATALOG.taxonomy if node.count("/") < 2}
    for node, title in shown.items():
        assert title.endswith(f" {len(CATALOG.papers_by_taxonomy[node])} papers")


def test_the_dots_of_the_timeline_are_all_papers():
    dots = [int(n) for n in re.findall(r'<circle[^>]*/><text[^>]*>(\d+)</text>', PICTURES["timeline"])]
    assert sum(dots) == len(CATALOG.papers)
    counts = Counter((paper.venue, paper.year) for paper in CATALOG.papers.values())
    assert ("../papers/?venue=iclr&from=2024&to=2024", f"ICLR 2024: {counts['iclr', 2024]} papers") in links(PICTURES["timeline"])


def test_coverage_counts_papers_with_code_and_with_a_method_here():
    toy = load(ROOT / "tests", "toy_catalog")
    assert field.covered(toy, {"ties_merging"}, {"ties_merging", "task_arithmetic"})["merging"] == [3, 3, 1, 2]
    top = field.covered(CATALOG, PAGES.implementations, PAGES.runs)
    assert all(papers >= code and papers >= here >= measured for papers, code, here, measured in top.values())


@pytest.mark.parametrize("chapter", GENEALOGIES)
def test_descent_runs_from_left_to_right(chapter):
    """Every method of the chapter stands there once; nothing stands left of what it builds on; no two boxes overlap."""
    svg, own = unescape(GENEALOGIES[chapter]), set(CATALOG.methods_by_chapter[chapter])
    box = r'<a href="\.\./methods/([^/]+)/"><title>[^<]*</title><rect class="([a-z ]+)" x="(\d+)" y="(\d+)"'
    places = {id: (int(x), int(y), style) for id, style, x, y in re.findall(box, svg)}
    assert {id for id, (_, _, style) in places.items() if style == "node"} == own
    for id, (x, y, _) in places.items():
        for link in CATALOG.methods[id].related:
            if link.how in field.DIRECTED and link.method in places and (id in own or link.method in own):
                without = None in (CATALOG.methods[id].introduced_by, CATALOG.methods[link.method].introduced_by)
                assert places[link.method][0] < x or without or link.how == "special case of", (id, link.method)
        for other, (a, b, _) in places.items():
            assert other == id or a != x or abs(b - y) >= 20, (id, other)
    drawn = Counter(re.findall(r'<path class="(builds-on|refines|special-case-of|compares-with)"', svg))
    stated = Counter(
        link.how.replace(" ", "-")
        for id in CATALOG.methods
        for link in CATALOG.methods[id].related
        if (id in own or link.method in own) and (link.how in field.DIRECTED or {id, link.method} <= own)
    )
    assert drawn == stated


def test_pictures_stay_small_as_the_catalog_grows(tmp_path):
    """Bars and dots do not grow with papers; topics do, up to what the taxonomy holds."""
    catalog = load(make_catalog(tmp_path / "catalog", 1500).parent)
    assert len(field.topics(catalog).encode()) < 40_000 and len(field.timeline(catalog).encode()) < 40_000
