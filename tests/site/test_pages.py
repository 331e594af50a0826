import json
import re
from types import SimpleNamespace

import pytest

from tests.site.building import ROOT
from tools import escape
from tools.catalog import CatalogError, load
from tools.docstrings import read_implementation
from tools.pages import VERDICTS, Pages
from tools.site import main, write

TOY = ROOT / "tests" / "toy_catalog"


@pytest.fixture(scope="module")
def toy():
    return dict(Pages(load(TOY.parent, TOY.name)).all())


@pytest.fixture(scope="module")
def real():
    return dict(Pages(load(ROOT)).all())


def test_every_record_has_its_page(toy, real):
    for pages, catalog in ((toy, load(TOY.parent, TOY.name)), (real, load(ROOT))):
        for kind in ("papers", "methods", "codebases", "reading_lists", "taxonomy", "venues"):
            for id in getattr(catalog, kind):
                assert f"catalog/{kind}/{id}.md" in pages
        for id, resource in catalog.resources.items():
            assert f"{{ #{id} }}" in pages[f"catalog/resources/{resource.kind.replace(' ', '-')}.md"]
        for paper in catalog.papers.values():
            assert f"catalog/years/{paper.year}.md" in pages


def test_a_paper_says_where_it_was_confirmed_and_who_its_authors_are(toy):
    paper = toy["catalog/papers/yadav2023ties.md"]
    assert "Confirmed in\n:   openreview.net/forum?id&#61;xtaX3WyCj1; reference list of a survey" in paper.replace("&#63;", "?")
    assert "Confirmed in" not in toy["catalog/papers/garipov2018loss.md"]
    soups = toy["catalog/papers/wortsman2022soups.md"]
    assert "https&#58;//orcid.org/0000-0002-1825-0097" in soups and '"@id": "https://orcid.org/0000-0002-1825-0097"' in soups


def test_files_are_written_only_when_they_change(tmp_path, capsys):
    arguments = ["--catalog", str(TOY), "--docs", str(tmp_path)]
    assert main(arguments) == 0
    first = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.md")}
    assert main(arguments) == 0
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.md")} == first
    assert re.search(r"pages: 0 written, 0 deleted", capsys.readouterr().out)


def test_pages_of_vanished_records_are_deleted_and_hand_written_ones_stay(tmp_path):
    stale, guide = tmp_path / "catalog" / "papers" / "gone2020x.md", tmp_path / "guide" / "start.md"
    for file in (stale, guide):
        file.parent.mkdir(parents=True)
        file.write_text("x")
    assert main(["--catalog", str(TOY), "--docs", str(tmp_path)]) == 0
    assert not stale.exists() and guide.exists()


def test_two_records_on_one_page_are_refused(tmp_path):
    with pytest.raises(CatalogError, match="two records claim the page a.md"):
        write(SimpleNamespace(all=lambda: [("a.md", "x"), ("a.md", "y")]), tmp_path)


def test_an_id_that_is_no_path_is_refused():
    catalog = load(TOY.parent, TOY.name)
    bad = SimpleNamespace(**{**vars(catalog), "papers": {"../x": None}})
    with pytest.raises(CatalogError, match="is not an id"):
        Pages(bad)


def test_links_lead_back(real):
    ties, paper = real["catalog/methods/ties_merging.md"], real["catalog/papers/yadav2023ties.md"]
    assert "catalog/papers/yadav2023ties.md" in ties and "catalog/methods/ties_merging.md" in paper
    assert "Refined by" in real["catalog/methods/task_arithmetic.md"]
    assert "ties_merging.md" in real["catalog/methods/task_arithmetic.md"]


def test_a_method_without_code_says_so_and_one_with_code_shows_it(toy, real):
    assert "Implementation to come" in toy["catalog/methods/ties_merging.md"]
    ties = real["catalog/methods/ties_merging.md"]
    assert "Implementation to come" not in ties
    for part in ("Idea", "Formula", "Parameters", "Example", "Source code", "How implementations differ", "In other libraries", "Cite"):
        assert f"\n## {part} {{" in ties
    assert "def ties_merging(" in ties and "tensor([-5.,  4.])" in ties and "math: true" in ties


MODULE = '''"""Halve it (nobody2020halves).

The idea.

Notation: theta_0 the base, lambda_k^l a coefficient, X^T X a product.

Departures: none. One remark.
"""

def helper(x):
    """A further function."""


def halve(base: dict, *, density: float = 0.2, mode: Literal["a", "b"] = "a", tol: float = 1e-6) -> dict:
    """Halve a model.

    $$ a < b $$

    Args:
        base: $theta_0$, the model;
            a state dict.
        density: fraction kept, in (0, 1]. Default 0.2: Sec. 6 ("top: 20%").
        mode: "a" or "b". Default "a": Algorithm 1.
        tol: change that ends the iteration, > 0. Default 1e-6: ours.

    Returns:
        A new model.

    Raises:
        ValueError: nothing received.

    Example:
        By hand.

        >>> x = 2
        >>> x / 2
        1.0

    References:
        nobody2020halves, Eq. (3).
    """

def _private():
    """Not shown."""
'''


def test_a_module_is_read_without_running_it(tmp_path):
    path = tmp_path / "halve.py"
    path.write_text(MODULE)
    code = read_implementation(path, tmp_path)
    assert [function.name for function in code.functions] == ["halve", "helper"]
    assert (code.title, code.idea, code.departures) == ("Halve it (nobody2020halves)", "The idea.", "None. One remark.")
    assert code.notation == r"$\theta_{0}$ the base, $\lambda_{k}^{l}$ a coefficient, $X^{T}$ X a product."
    found = {p.name: (p.default, p.range, p.source, p.meaning) for p in code.main.parameters}
    assert found["base"] == (None, None, None, "$theta_0$, the model; a state dict")
    assert found["density"] == ("0.2", "(0, 1]", 'Sec. 6 ("top: 20%")', "fraction kept")
    assert found["mode"][:3] == ('"a"', '`"a"`, `"b"`', "Algorithm 1")
    assert found["tol"][:3] == ("1e-06", "> 0", "ours")
    assert code.main.examples == [("By hand.", "x = 2\nx / 2\n", "1.0")]
    assert code.main.description == "$$ a < b $$" and code.main.raises == [("ValueError", "nothing received.")]


def test_a_parameter_of_every_public_function_is_documented():
    """What the signature has and the docstring leaves out would be an empty row on the page."""
    pages = Pages(load(ROOT))
    for code in pages.implementations.values():
        for parameter in code.main.parameters:
            assert parameter.meaning, f"{code.path}: {parameter.name} has no meaning under Args"


def test_every_comparison_with_another_library_is_on_both_pages(toy, real):
    assert "Nothing has been compared yet" in toy["catalog/parity.md"] and "{ #parity" not in toy["catalog/methods/ties_merging.md"]
    rows = json.loads((ROOT / "tests" / "parity" / "matrix.json").read_text(encoding="utf-8"))
    text = real["catalog/parity.md"]
    for row in rows:
        page = real[f"catalog/methods/{row['method']}.md"]
        assert f"](../catalog/methods/{row['method']}.md)" in text and "\n## Compared with other libraries {" in page
        for place in (text, page):
            assert str(escape.text(row["detail"])) in place and all(str(escape.text(name)) in place for name in row["called"])
        assert row["verdict"] != "differs" or re.search(rf"differs</span> \[{re.escape(str(escape.text(row['detail'])))}\]\(#differs-\d+\)", page)
    for verdict, words in VERDICTS.items():
        count = sum(row["cases"] for row in rows if row["verdict"] == verdict)
        assert f"<dd>{count}</dd><dt>{words}</dt>" in text


def test_what_a_comparison_found_is_escaped():
    pages, bad = Pages(load(TOY.parent, TOY.name)), '<script>alert("x")</script> [x](javascript:y) | {{ z }}'
    row = {"method": "ties_merging", "library": bad, "detail": bad, "called": [bad], "cases": 1, "rtol": 0.1}
    pages.parity = [{**row, "verdict": verdict} for verdict in VERDICTS]
    for _, page in (pages.parity_table(), pages.method("ties_merging")):
        for active in ("<script", "](javascript", "{{ z"):
            assert active not in page


def test_counts_on_the_home_page_are_computed(toy):
    catalog = load(TOY.parent, TOY.name)
    assert f"<dd>{len(catalog.papers)}</dd><dt>papers</dt>" in toy["index.md"]
    assert f"<dd>{len(catalog.methods)}</dd><dt>methods</dt>" in toy["index.md"]


def test_lists_keep_their_order_marks_and_corrections(real):
    catalog = load(ROOT)
    for id, reading_list in catalog.reading_lists.items():
        page = real[f"catalog/reading_lists/{id}.md"]
        position = 0
        for section in reading_list.sections:
            position = page.index(str(escape.text(section.heading)), position)
            for entry in section.entries:
                if entry.paper:
                    position = page.index(f"papers/{entry.paper}.md", position)
                for mark in entry.marks:
                    position = page.index(f'<span class="mark">{mark}</span>', position)
                for correction in entry.corrections:
                    position = page.index(str(escape.text(correction.was)), position)
                    position = page.index(str(escape.text(correction.why)), position)


def test_every_heading_of_the_lists_is_in_the_table_of_headings(real):
    for reading_list in load(ROOT).reading_lists.values():
        for section in reading_list.sections:
            assert str(escape.text(section.heading)) in real["catalog/headings.md"]


def test_related_papers_share_a_topic_and_never_include_the_paper_itself():
    pages = Pages(load(ROOT))
    for id, related in pages.related_papers.items():
        tops = {node.split("/")[0] for node in pages.catalog.papers[id].taxonomy}
        assert id not in related and len(set(related)) == len(related) <= 6
        for other in related:
            assert tops & {node.split("/")[0] for node in pages.catalog.papers[other].taxonomy}
