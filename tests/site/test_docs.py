"""Python in the hand-written pages runs, and its `#>` lines are what it prints."""

import contextlib
import io
import re

import pytest
from sybil import Document
from sybil.parsers.markdown import CodeBlockParser

from tests.site.building import ROOT

PAGES = sorted(
    page
    for folder in (ROOT, ROOT / "docs")
    for page in (folder.rglob("*.md") if folder.name == "docs" else folder.glob("*.md"))
    if "catalog" not in page.relative_to(ROOT).parts and page != ROOT / "docs" / "index.md"
)


def run(example):
    expected = re.findall(r"(?:^|(?<=  ))#> ?(.*)$", example.parsed, re.MULTILINE)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(example.parsed, example.document.path, "exec"), example.document.namespace)
    if printed.getvalue().splitlines() != expected:
        return f"the page shows {expected}, the code prints {printed.getvalue().splitlines()}"
    return None


def examples(page):
    return list(Document.parse(str(page), CodeBlockParser(language="python", evaluator=run)))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_python_of_a_page_runs_and_prints_what_the_page_shows(page):
    found = examples(page)
    for example in found:
        example.evaluate()
    fences = re.findall(r"^\s*(?:```+|~~~+)\s*\{?\s*\.?(?:py|python|python3|pycon)\b", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(fences) == len(found), f"{page.name} has Python that no test runs; use ```python at the start of the line"


def test_a_wrong_output_is_found(tmp_path):
    page = tmp_path / "wrong.md"
    page.write_text("```python\nprint(1 + 1)\n#> 3\n```\n")
    (example,) = examples(page)
    with pytest.raises(Exception, match="the page shows"):
        example.evaluate()


def test_there_is_python_to_run():
    assert any(examples(page) for page in PAGES)
