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


def test_no_python_of_a_generated_page_is_left_untested(real_docs):
    """Every block is the source of a module, the code of a demo, a signature, or an example that a doctest runs."""
    modules = {file.read_text(encoding="utf-8").strip("\n") for folder in ("reference_impls", "docs/demos") for file in (ROOT / folder).rglob("*.py")}
    examples = ""
    for file in (ROOT / "reference_impls").rglob("*.py"):
        examples += re.sub(r"^\s*(?:>>>|\.\.\.) ?", "", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    known = {line.strip() for line in examples.splitlines()}
    untested = []
    for page in sorted((real_docs / "catalog").rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        for ticks, head, block in re.findall(r"^(```+) ?(.*)\n((?:.*\n)*?)\1$", text, re.MULTILINE):
            if not re.match(r"\{?\s*\.?(?:py|python)", head) or "signature" in head or block.strip("\n") in modules:
                continue
            lines = [line.strip() for line in block.splitlines() if line.strip()]
            lines = [line for line in lines if not re.match(r"(import torch|from reference_impls\.)", line)]  # added, to be complete
            untested += [f"{page.name}: {line}" for line in lines if line not in known]
    assert not untested, untested[:5]


def test_every_example_that_a_page_shows_has_output_that_was_compared(real_docs):
    pages = [page for page in (real_docs / "catalog" / "methods").glob("*.md") if page.stem != "index"]
    assert len(pages) > 100 and all('class="output"' in page.read_text(encoding="utf-8") for page in pages)
