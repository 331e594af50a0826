"""A method on its own: one file, and a notebook, that work without the project."""

import ast
import contextlib
import doctest
import io
import json
import sys
import types
from pathlib import Path

import nbformat
import pytest

import reference_impls as ri
from tools.catalog import load
from tools.docstrings import read_implementation
from tools.notebooks import colab, notebook
from tools.standalone import standalone

ROOT = Path(__file__).parents[2]
FILES = {name: ROOT / (module.replace(".", "/") + ".py") for name, module in ri.methods().items()}


@pytest.fixture(scope="module")
def methods():
    return load(ROOT).methods


def executed(source: str, name: str) -> types.ModuleType:
    module = types.ModuleType(name)
    sys.modules[name] = module  # dataclasses look their module up
    exec(compile(source, name, "exec"), module.__dict__)
    return module


@pytest.mark.parametrize("name", FILES)
def test_the_file_needs_nothing_of_the_project_and_its_examples_hold(name):
    source = standalone(FILES[name], ROOT)
    imported = [node for node in ast.walk(ast.parse(source)) if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert not [ast.unparse(node) for node in imported if "reference_impls" in ast.unparse(node)]
    function = getattr(executed(source, f"alone_{name}"), name)
    (test,) = doctest.DocTestFinder(recurse=False).find(function, name, globs=dict(function.__globals__))
    assert test.examples and doctest.DocTestRunner().run(test).failed == 0


@pytest.mark.parametrize("name", FILES)
def test_the_notebook_is_valid_and_its_cells_show_what_they_say(name, methods):
    written = json.loads(notebook(methods[name], read_implementation(FILES[name], ROOT), f"from {ri.methods()[name]} import *\n", None))
    nbformat.validate(written)
    assert getattr(ri, name)
    values = dict(vars(sys.modules[ri.methods()[name]]))
    cells = [cell for cell in written["cells"] if cell["cell_type"] == "code" and cell["id"] != "source"]
    assert any(cell["outputs"] for cell in cells)
    for cell in cells:
        shown, printed = "", io.StringIO()
        tree = ast.parse("".join(cell["source"]))
        output = cell["outputs"][0] if cell["outputs"] else {}
        last = tree.body.pop() if output.get("output_type") == "execute_result" else None
        with contextlib.redirect_stdout(printed):
            exec(compile(tree, name, "exec"), values)
            shown = repr(eval(compile(ast.Expression(last.value), name, "eval"), values)) if last else printed.getvalue()
        if output:
            expected = "".join(output["data"]["text/plain"] if last else output["text"])
            assert doctest.OutputChecker().check_output(expected.rstrip() + "\n", shown.rstrip() + "\n", doctest.NORMALIZE_WHITESPACE)


def test_names_that_two_modules_share_are_kept_apart(tmp_path):
    package = tmp_path / "reference_impls"
    package.mkdir()
    (package / "other.py").write_text('"""O."""\nimport math\n\nLIMIT = 2\n\n\ndef _half(x):\n    return x / LIMIT\n\n\ndef root(x, half=0):\n    return math.sqrt(_half(x)) + half\n\n\ndef unused():\n    return 1\n')
    (package / "toy.py").write_text('"""T."""\nfrom reference_impls.other import root\n\n\ndef _half(x):\n    return 0.5 * x\n\n\ndef toy(x):\n    return _half(root(x, half=1))\n')
    source = standalone(package / "toy.py", tmp_path)
    assert executed(source, "alone_toy").toy(8) == 1.5
    assert "unused" not in source and "_half_of_other" in source


def test_an_import_that_renames_is_refused(tmp_path):
    package = tmp_path / "reference_impls"
    package.mkdir()
    (package / "toy.py").write_text('"""T."""\nfrom reference_impls.other import root as r\n\n\ndef toy(x):\n    return r(x)\n')
    with pytest.raises(ValueError, match="one by one"):
        standalone(package / "toy.py", tmp_path)


def test_colab_is_offered_only_where_the_deployment_names_its_repository(monkeypatch):
    monkeypatch.delenv("ATLAS_REPOSITORY", raising=False)
    assert colab("a.ipynb") is None
    monkeypatch.setenv("ATLAS_REPOSITORY", "someone/atlas")
    assert colab("a.ipynb") == "https://colab.research.google.com/github/someone/atlas/blob/gh-pages/a.ipynb"
    monkeypatch.setenv("ATLAS_REPOSITORY", "a/b/../../<script>")
    with pytest.raises(ValueError, match="owner/name"):
        colab("a.ipynb")
