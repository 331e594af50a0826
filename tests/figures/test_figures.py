"""What the pages show was measured, and is drawn as it was measured."""

import json
import re
from xml.etree import ElementTree

import pytest

from docs.figures import measure, measure_cost
from tests.site.building import ROOT
from tools import figures
from tools.catalog import load
from tools.imports import imported
from tools.pages import Pages

RECORDS = figures.load(ROOT / "docs" / "figures" / "data")
COSTS = json.loads(measure_cost.FILE.read_text(encoding="utf-8"))
RECOVERED = ("weight_matching", "activation_matching", "frank_wolfe_matching", "sinkhorn_rebasin", "otfusion")
CHEAP = ("layerwise_barrier", "llfc", "cca_merge", "neuron_replication_path", "fast_geometric_ensembling", "transformer_otfusion")
SVG = "{http://www.w3.org/2000/svg}"


def drawn(**changes):
    """A line from 1 over 3 to 1, two seeds one apart."""
    curve = {"name": "naive", "x": [0.0, 0.5, 1.0], "values": [[0.5, 2.5, 0.5], [1.5, 3.5, 1.5]]}
    record = {"method": "m", "title": "T", "x": "t", "y": "loss", "kind": "line", "log_y": False, "seeds": [0, 1]}
    return figures.svg(record | {"curves": [curve]} | changes)


def parse(picture):
    return ElementTree.fromstring(str(picture).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


@pytest.fixture(scope="module")
def pages():
    catalog = load(ROOT)
    pages = Pages(catalog)
    chapter = pages.chapter_page(next(chapter for chapter in pages.chapters if chapter["id"] == "alignment"))
    return {id: pages.method(id)[1] for id in RECORDS} | {"cost": pages.cost_table()[1], "table": chapter[1]}


# --- what is measured ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chapter", ["alignment", "connectivity"])
def test_every_method_has_a_figure_and_its_numbers(chapter):
    methods = {file.stem for file in (ROOT / "reference_impls" / chapter).glob("[!_]*.py")}
    assert {file.stem for file in (ROOT / "docs" / "figures" / chapter).glob("*.py")} == methods <= set(RECORDS)


def test_every_record_has_its_figure_and_three_seeds():
    assert {*RECORDS} == {*measure.figures()}
    for method, record in RECORDS.items():
        assert record["seeds"] == [0, 1, 2] and record["command"] == f"python -m docs.figures.measure {method}"
        for curve in record["curves"]:
            assert len(curve["values"]) == 3 and all(len(values) == len(curve["x"]) for values in curve["values"])
        assert record["table"] and all(len(cell["values"]) == 3 for row in record["table"] for cell in row["cells"])


@pytest.mark.parametrize("method", CHEAP)
def test_measuring_again_gives_the_recorded_numbers(method):
    # another machine rounds and so trains a little differently; a tenth is far below what any figure claims
    again, recorded = measure.measure(method, seeds=(0,)), RECORDS[method]
    assert [curve["name"] for curve in again["curves"]] == [curve["name"] for curve in recorded["curves"]]
    for new, old in zip(again["curves"], recorded["curves"]):
        assert new["x"] == old["x"] and new["values"][0] == pytest.approx(old["values"][0], rel=0.1, abs=0.02)
    for new, old in zip(again["table"], recorded["table"]):
        for cell, was in zip(new["cells"], old["cells"]):
            assert (new["name"], cell["name"]) == (old["name"], was["name"])
            assert cell["values"][0] == pytest.approx(was["values"][0], rel=0.1, abs=0.02)
    for words in ("title", "setting", "x", "y", "reading", "kind", "log_y"):
        assert again[words] == recorded[words]


@pytest.mark.parametrize("method", RECOVERED)
def test_recovery_is_measured_and_failures_are_shown(method, pages):
    found = RECORDS[method]["recovery"]
    for network in ("perceptron", "convolutional network", "transformer"):
        assert [counts for name, counts in found.items() if name.startswith(network)] == [[100, 100]]
    for name, (count, times) in found.items():
        assert f"| {name} | {count} of {times} |" in pages[method].replace("&#44;", ",")


def test_only_what_changed_is_measured_again(monkeypatch, capsys):
    def refuse(method):
        raise AssertionError(f"{method} has not changed")

    monkeypatch.setattr(measure, "measure", refuse)
    monkeypatch.setattr(measure, "fingerprint", lambda path: RECORDS[path.stem]["fingerprint"])
    assert measure.main([]) == 0 and measure.main(["llfc"]) == 0
    with pytest.raises(AssertionError, match="llfc has not changed"):
        measure.main(["--all", "llfc"])
    with pytest.raises(SystemExit):
        measure.main(["nothing"])
    assert "no figure for nothing" in capsys.readouterr().err


def test_a_figure_depends_on_the_code_that_it_runs_and_not_on_comments(tmp_path):
    found = {path.relative_to(ROOT).as_posix() for path in imported(measure.figures()["weight_matching"], ROOT)}
    assert {"docs/figures/toys.py", "reference_impls/alignment/weight_matching.py"} <= found
    assert ROOT / "reference_impls/core/toy_zoo/data.py" in imported(ROOT / "reference_impls/core/toy_zoo/__init__.py", ROOT)
    assert ROOT / "reference_impls/core/lora.py" in imported(ROOT / "reference_impls/core/toy_zoo/__init__.py", ROOT)
    one, two, three = (tmp_path / f"{name}.py" for name in "abc")
    one.write_text('"""A."""\n\ndef f(x):\n    """B."""\n    return x + 1  # more\n')
    two.write_text("def f(x):\n\n    return (x +\n            1)\n")
    three.write_text("def f(x):\n    return x + 2\n")
    code = [measure._code(path).replace("pass\n", "").replace("    pass\n", "").split() for path in (one, two, three)]
    assert code[0] == code[1] != code[2]


# --- what is drawn ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", RECORDS)
def test_a_picture_is_small_well_formed_described_and_always_the_same(method):
    picture = figures.svg(RECORDS[method])
    assert picture == figures.svg(json.loads(json.dumps(RECORDS[method]))) and len(picture.encode()) <= 40_000
    root = parse(picture)
    title, description = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert root.get("role") == "img" and root.get("aria-labelledby").split() == [title.get("id"), description.get("id")]
    assert title.text == RECORDS[method]["title"]
    assert all(curve["name"] in description.text for curve in RECORDS[method]["curves"])
    width, height = map(float, root.get("viewBox").split()[2:])
    for element in root.iter():
        assert not {"style", "fill", "stroke"} & set(element.attrib), "colours are the stylesheet's"
        for name in ("x", "cx"):
            assert 0 <= float(element.get(name, 0)) <= width
        for name in ("y", "cy"):
            assert 0 <= float(element.get(name, 0)) <= height
        if element.tag == f"{SVG}path":
            assert re.fullmatch(r"[MLHVZh\d. -]+", element.get("d")), "no infinite or missing number"


def test_a_line_and_its_band_by_hand():
    # plot from x = 46 to 466 and, below 50 of key and label, from y = 50 to 240; axis 0 to 4: y = 240 - 190 v / 4
    picture = drawn()
    assert 'class="s1" d="M46.0 192.5 256.0 97.5 466.0 192.5"' in picture  # 1, 3, 1
    assert 'class="band s1" d="M46.0 168.8 256.0 73.8 466.0 168.8L466.0 216.2 256.0 121.2 46.0 216.2Z"' in picture
    assert "naive&#58; 1.00 at 0, 3.00 at 0.5, 1.00 at 1." in picture


def test_bars_stand_on_zero_and_logarithms_are_even():
    curve = {"name": "a", "x": ["p", "q"], "values": [[2.0, -1.0]]}
    # axis -1 to 2: zero at 240 - 190 / 3 = 176.7; two places of 210, bars of 147
    bars = drawn(kind="bar", curves=[curve])
    assert 'y="50.0" width="145.0" height="126.7"' in bars and 'y="176.7" width="145.0" height="63.3"' in bars
    dots = drawn(kind="dot", log_y=True, curves=[{"name": "a", "x": ["p", "q", "r"], "values": [[0.001, 0.1, 10.0]]}])
    assert [float(y) for y in re.findall(r'<circle class="s1" cx="[\d.]+" cy="([\d.]+)" r="4"/>', dots)][:3] == [240, 145, 50]


def test_words_of_a_record_are_text():
    picture = drawn(title="</title><script>", x='"><b>', y="a & b")
    assert "<script" not in picture and "<b>" not in picture and parse(picture).find(f"{SVG}title").text == "</title><script>"


def test_rows_that_share_a_column_share_a_table():
    cells = lambda **values: [{"name": name, "values": value} for name, value in values.items()]  # noqa: E731
    rows = [
        {"name": "one", "cells": cells(before=[0.4, 0.6], after=[0.0, 0.0])},
        {"name": "two", "cells": cells(before=[1.0, 1.0], repaired=[0.012, 0.014])},
        {"name": "three", "cells": cells(other=[2e-8, 4e-8])},
    ]
    first, second = figures.tables({"table": rows})
    assert first[0] == ["before", "after", "repaired"] and second[0] == ["other"]
    assert second[1] == [("three", ["3.0·10⁻⁸" + by("2.0·10⁻⁸ to 4.0·10⁻⁸")])]
    assert first[1] == [("one", ["0.50" + by("0.40 to 0.60"), "0", ""]), ("two", ["1.00", "", "0.013" + by("0.012 to 0.014")])]


def by(words):
    return f'<span class="by">{words}</span>'


# --- what a page shows -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", RECORDS)
def test_a_page_shows_the_picture_and_the_numbers_of_the_record(method, pages):
    page, record = pages[method], RECORDS[method]
    section = page[page.index("## What it does on the toy zoo") : page.index("## Parameters")]
    assert figures.svg(record) in section and f"../../figures/data/{method}.json" in section.replace("&#95;", "_")
    for _, rows in figures.tables(record):
        for _, cells in rows:
            assert " | ".join(cells) in section


def test_costs_are_shown_for_every_matching_and_linked(pages):
    assert {row["method"] for row in COSTS["rows"]} == set(measure_cost.METHODS) and COSTS["widths"] == [256, 512, 1024, 2048]
    for row in COSTS["rows"]:
        seconds = row["seconds"]
        assert "O(" in row["grows"] or "weight matching" in row["grows"]
        assert len(seconds) == 4 or 8 * seconds[-1] > COSTS["limit"], f"{row['method']} stops early without a reason"
        assert "../../catalog/cost-of-matching.md" in pages[row["method"]]
        assert seconds == sorted(seconds) and f"methods/{row['method']}.md" in pages["cost"]
    assert "catalog/cost-of-matching.md" in pages["table"]


def test_costs_can_be_measured_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(measure_cost, "FILE", tmp_path / "costs.json")
    monkeypatch.setattr(measure_cost, "WIDTHS", (8, 16))
    assert measure_cost.main([]) == 0
    found = json.loads((tmp_path / "costs.json").read_text(encoding="utf-8"))
    assert [len(row["seconds"]) for row in found["rows"]] == [2] * len(measure_cost.METHODS)
    assert measure_cost.main(["nothing"]) == 2 and "no such method" in capsys.readouterr().err
