"""Every demo gives with PyTorch what was recorded, and in the browser's runtime the same; every picture is fit for a page."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
import types
from xml.etree import ElementTree

import pytest

import reference_impls as ri
from docs.demos import record
from docs.demos.picture import Picture, difference, numbers
from tests.demos.on_borch import ROOT
from tools import figures
from tools.catalog import load
from tools.lab import Lab
from tools.pages import Pages

LAB = Lab(ROOT)
METHODS = ri.methods()
DEMOS = record.demos()
LIVE = [method for method in DEMOS if method not in LAB.torch_only]
TOLERANCE = 1e-4  # of the largest number of a picture, or of one where all are smaller
MOST_TORCH_ONLY = 3  # may only shrink


def scale(recorded: dict) -> float:
    return max(1.0, *map(abs, numbers(recorded)))


def module(method: str):
    return importlib.import_module(".".join(DEMOS[method].relative_to(ROOT).with_suffix("").parts))


@pytest.fixture(scope="session")
def on_borch() -> dict[str, dict]:
    """Method -> the answer of the page's driver, at the start of its controls and at both ends, from plain CPython."""
    command = [sys.executable, str(ROOT / "tests" / "demos" / "on_borch.py")]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert found.returncode == 0, found.stderr
    answers = [json.loads(line) for line in found.stdout.splitlines()]
    return {answer["method"]: answer for answer in answers}


def test_every_method_has_a_picture_and_four_in_five_a_live_run():
    assert set(DEMOS) == set(METHODS) and len(LIVE) >= 0.8 * len(METHODS)


# --- what a demo is --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", DEMOS)
def test_a_demo_is_short_named_as_its_method_and_has_controls_for_its_parameters(method):
    assert METHODS[method].split(".")[1] == DEMOS[method].parent.name
    source = DEMOS[method].read_text(encoding="utf-8")
    demo = module(method)
    assert len(source.splitlines()) <= 70 and ast.get_docstring(ast.parse(source))
    assert f"{METHODS[method]} import " in source, "a demo calls its own method"
    assert [control.name for control in demo.CONTROLS] == list(inspect.signature(demo.demo).parameters)
    assert 1 <= len(demo.CONTROLS) <= 4
    for control in demo.CONTROLS:
        steps = [(value - control.low) / control.step for value in (control.start, control.high)]
        assert all(abs(n - round(n)) < 1e-6 for n in steps) and control.low <= control.start <= control.high


@pytest.mark.parametrize("method", DEMOS)
def test_pytorch_gives_the_recorded_numbers(method):
    recorded, again = LAB.records[method], record.run(method)
    assert {key: again[key] for key in ("title", "reading", "x", "y", "kind", "controls")} == {
        key: recorded[key] for key in ("title", "reading", "x", "y", "kind", "controls")
    }, f"run `python -m docs.demos.record {method}`"
    # another machine rounds differently, and training makes more of it
    assert difference(recorded, again) <= 1e-3 * scale(recorded), f"run `python -m docs.demos.record {method}`"


def test_every_record_has_its_demo():
    assert set(LAB.records) == set(DEMOS)


@pytest.mark.parametrize("method", LIVE)
def test_the_browsers_runtime_agrees_with_pytorch(method, on_borch):
    answer = on_borch[method]
    assert "error" not in answer, answer
    assert answer["difference"] is not None and answer["difference"] <= TOLERANCE * scale(LAB.records[method])


@pytest.mark.parametrize("method", LIVE)
def test_the_ends_of_every_slider_can_be_drawn(method, on_borch):
    for end in ("low", "high"):
        assert "error" not in on_borch[method][end], (end, on_borch[method][end])


def test_what_the_browsers_runtime_cannot_run_is_listed_with_a_reason_and_the_list_only_shrinks(on_borch):
    assert len(LAB.torch_only) <= MOST_TORCH_ONLY
    for method, reason in LAB.torch_only.items():
        assert method in DEMOS and len(reason) > 20
        assert "BorchError" in on_borch[method].get("error", ""), f"{method} runs there now: take it off torch_only.json"


# --- what is drawn ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", DEMOS)
def test_a_picture_is_small_described_and_always_the_same(method):
    recorded = LAB.records[method]
    picture = figures.svg(recorded)
    assert picture == figures.svg(json.loads(json.dumps(recorded))) and len(picture.encode()) <= 40_000
    root = ElementTree.fromstring(str(picture).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))
    title, description = (root.find(f"{{http://www.w3.org/2000/svg}}{tag}") for tag in ("title", "desc"))
    assert title.text == recorded["title"] and len(description.text) > 20
    width, height = map(float, root.get("viewBox").split()[2:])
    for element in root.iter():
        assert not {"style", "fill", "stroke"} & set(element.attrib), "colours are the stylesheet's"
        for name, end in (("x", width), ("cx", width), ("y", height), ("cy", height)):
            assert -0.1 <= float(element.get(name, 0)) <= end + 0.1
    assert all(word not in picture for word in ("nan", "inf "))


def test_a_picture_that_cannot_be_drawn_is_refused_with_what_was_received():
    words = {"title": "t", "reading": "r", "x": "x", "y": "y"}
    for wrong, said in [
        ({"series": {}}, "received 0 series"),
        ({"series": {"a": [1.0]}, "at": [0, 1]}, "'a' has 1 heights at 2 places"),
        ({"series": {"a": [float("nan")]}, "at": [0]}, "'a' holds nan"),
        ({"series": {"a": [1.0]}, "at": [0], "kind": "pie"}, "kind is 'pie'"),
        ({"series": {str(i): [1.0] for i in range(5)}, "at": [0]}, "received 5 series"),
    ]:
        with pytest.raises(ValueError, match=said):
            Picture(**words, **wrong).record("m")


def test_points_and_matrices_by_hand():
    words = {"title": "t", "reading": "r", "x": "across", "y": "up"}
    points = figures.svg(Picture(**words, kind="scatter", series={"a": ([0, 1], [0, 2]), "b": ([0.5], [1])}).record("m"))
    # axis from x = 46 to 466 less 6 at both ends; two lines of key and the label: y from 68 to 258
    assert '<circle class="s1" cx="52.0" cy="258.0" r="3.5"/>' in points
    assert '<circle class="s1" cx="460.0" cy="68.0" r="3.5"/>' in points
    assert '<rect class="s2" x="252.5" y="159.5" width="7" height="7"/>' in points
    assert "a&#58; 2 points, 0 to 1 across, 0 to 2.00 up." in points
    matrix = figures.svg(Picture(**words, kind="heat", at=["p", "q"], series={"a": [1.0, -0.5], "b": [0.0, 0.25]}).record("m"))
    assert [part.split('"')[0] for part in matrix.split('opacity="')[1:]] == ["1.00", "0.50", "0.00", "0.25"]
    assert matrix.count('class="cell s3"') == 1 and "b&#58; 0.00, 0.25." in matrix


# --- what a page shows -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pages():
    pages = Pages(load(ROOT))
    return pages, dict(pages.lab.published())


@pytest.mark.parametrize("method", DEMOS)
def test_a_page_has_the_picture_the_code_and_all_files_of_a_live_run(method, pages):
    page = pages[0].method(method)[1]
    assert str(figures.svg(LAB.records[method])) in page and DEMOS[method].read_text(encoding="utf-8").strip() in page
    assert ("<fusion-lab " in page) == (method in LIVE)
    files = LAB.of(method)["files"].split()
    assert f"reference_impls/{DEMOS[method].parent.name}/{method}.py" in files and "tools/drawing.py" in files
    for file in files:
        assert pages[1][f"catalog/code/{file}"] == (ROOT / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("method", DEMOS)
def test_the_one_file_of_a_demo_gives_its_numbers_without_the_project(method, pages, monkeypatch):
    name = f"standalone_{method}"
    monkeypatch.setitem(sys.modules, name, alone := types.ModuleType(name))  # dataclasses look their module up
    source, book = (pages[1][f"catalog/demos/{method}.{end}"] for end in ("py", "ipynb"))
    assert not re.search(r"^\s*(from|import) (docs|reference_impls)\b", source, re.MULTILINE)
    exec(compile(source, name, "exec"), vars(alone))
    again = alone.demo(**{control["name"]: control["start"] for control in LAB.records[method]["controls"]}).record(method)
    assert difference(LAB.records[method], again) <= 1e-3 * scale(LAB.records[method])
    cells = json.loads(book)["cells"]
    assert "".join("".join(cell["source"]) for cell in cells[1:]).replace("\n", "") == source.replace("\n", "")


def test_only_what_changed_is_recorded_again(monkeypatch):
    def refuse(method):
        raise AssertionError(f"{method} has not changed")

    method = next(iter(DEMOS))
    monkeypatch.setattr(record, "run", refuse)
    monkeypatch.setattr(record, "fingerprint", lambda path: LAB.records[path.stem]["fingerprint"])
    assert record.main([]) == 0
    with pytest.raises(AssertionError, match="has not changed"):
        record.main(["--all", method])
    with pytest.raises(SystemExit):
        record.main(["nothing"])
