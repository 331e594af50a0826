"""Every method has a record, a test, a citation, a formula, a doctest and a description of every input."""

from __future__ import annotations

import ast
import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest
import yaml

import reference_impls as ri
from tools.docstrings import read_implementation

ROOT = Path(__file__).parents[2]
METHODS = ri.methods()


def record(name: str) -> dict:
    chapter = METHODS[name].split(".")[1]
    return yaml.load((ROOT / f"catalog/methods/{chapter}/{name}.yaml").read_text(), yaml.CSafeLoader)


def test_methods_of_all_chapters_are_found() -> None:
    assert {path.split(".")[1] for path in METHODS.values()} == set(ri.CHAPTERS)


@pytest.mark.parametrize("name", METHODS)
def test_method_has_a_record_and_a_test(name: str) -> None:
    chapter = METHODS[name].split(".")[1]
    assert record(name)["summary"]
    source = (ROOT / f"tests/methods/{chapter}/test_{name}.py").read_text()
    tests = [node.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    assert len(tests) >= 4, f"{tests} are too few: by hand, limits, invariance, it helps, refusals"
    for differs in record(name).get("differs", []):
        assert differs["test"] in tests, f"differs names {differs['test']}, which test_{name}.py lacks"


@pytest.mark.parametrize("name", METHODS)
def test_method_cites_the_paper_of_its_record(name: str) -> None:
    module = import_module(METHODS[name])
    first_line = module.__doc__.splitlines()[0]
    cited = re.search(r"\(([a-z]+(?:19|20)\d\d[a-z0-9]*)[^)]*\)\.$", first_line)
    paper = record(name)["introduced_by"]
    assert (cited[1] if cited else None) == paper, f"the module cites {cited and cited[1]}, the record {paper}"


@pytest.mark.parametrize("name", METHODS)
def test_method_is_documented(name: str) -> None:
    function = getattr(ri, name)
    text = inspect.getdoc(function)
    assert "$$" in text, "no formula"
    assert ">>>" in text, "no doctest"
    for part in ("Args:", "Returns:", "Raises:", "Example:", "References:"):
        assert part in text, f"no {part}"
    for parameter in inspect.signature(function).parameters:
        assert re.search(rf"^\s+{parameter}: ", text, re.M), f"{parameter} is not described"
    assert "Departures:" in import_module(METHODS[name]).__doc__


@pytest.mark.parametrize("name", METHODS)
def test_every_described_option_says_its_default_and_why(name: str) -> None:
    implementation = read_implementation(Path(import_module(METHODS[name]).__file__), ROOT)
    for function in implementation.functions:
        for option in function.parameters:
            described = function.name == name or option.meaning
            if described and option.default is not None and option.name not in ("progress", "generator"):
                assert option.source, f"{option.name} of {function.name} has no \"Default {option.default}: source\""


@pytest.mark.parametrize("name", METHODS)
def test_module_is_short_enough_to_read(name: str) -> None:
    assert len(Path(import_module(METHODS[name]).__file__).read_text().splitlines()) <= 200
