"""The catalog in memory: lines, links backwards, and code that is found without importing it."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools.toy import TOY, write
from tools.catalog import CatalogError, load

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def toy():
    return load(TOY.parent, TOY.name)


def test_every_kind_is_read_and_knows_its_id(toy):
    assert [len(x) for x in (toy.papers, toy.methods, toy.codebases, toy.resources, toy.reading_lists)] == [5, 2, 1, 1, 1]
    for records in (toy.papers, toy.methods, toy.codebases, toy.taxonomy, toy.venues):
        assert all(record.id == id for id, record in records.items())
    assert toy.problems == ()


@pytest.mark.parametrize(
    "kind, id, keys, line",
    [
        ("papers", "yadav2023ties", ("title",), 1),
        ("papers", "yadav2023ties", ("authors", 4), 10),
        ("papers", "yadav2023ties", ("code", 0, "official"), 20),
        ("papers", "yadav2023ties", ("code", 0, "note"), 19),
        ("papers", "yadav2023ties", ("nothing",), 1),
        ("methods", "ties_merging", ("elsewhere", 0, "parameters", "lambda"), 25),
        ("reading_lists", "first-steps", ("sections", 1, "entries", 1, "corrections", 0, "why"), 26),
        ("taxonomy", "merging", ("merging", "name"), 7),
    ],
)
def test_a_value_knows_its_line(toy, kind, id, keys, line):
    assert toy.source(kind, id).line(*keys) == line


def test_a_paper_counts_in_its_node_and_above(toy):
    assert toy.papers_by_taxonomy == {
        "connectivity": ["ainsworth2023gitrebasin", "garipov2018loss"],
        "merging": ["ilharco2023task", "wortsman2022soups", "yadav2023ties"],
        "merging/averaging": ["wortsman2022soups"],
        "merging/task-vectors": ["ilharco2023task", "yadav2023ties"],
    }
    assert toy.methods_by_taxonomy["merging"] == ["task_arithmetic", "ties_merging"]
    assert toy.children == {"": ["connectivity", "merging"], "merging": ["merging/averaging", "merging/task-vectors"]}


def test_links_are_found_from_their_other_end(toy):
    assert toy.methods_by_paper == {"ilharco2023task": ["task_arithmetic"], "yadav2023ties": ["ties_merging"]}
    assert toy.methods_by_related == {"task_arithmetic": ["ties_merging"]}
    assert toy.methods_by_chapter == {"task_vectors": ["task_arithmetic", "ties_merging"]}
    assert toy.reading_lists_by_paper["yadav2023ties"] == ["first-steps"]
    assert toy.reading_lists_by_codebase == {"mergekit": ["first-steps"]}
    assert toy.reading_lists_by_resource == {"peft-model-merging": ["first-steps"]}
    assert toy.codebases_by_paper == {"yadav2023ties": ["mergekit"]}
    assert toy.resources_by_paper == {"yadav2023ties": ["peft-model-merging"]}
    assert toy.resources_by_method == {"ties_merging": ["peft-model-merging"]}


def test_an_implementation_is_named_only_where_its_function_is(project):
    text = '"""Task arithmetic (ilharco2023task)."""\nraise SystemExit\n'
    write(project, "reference_impls/task_vectors/task_arithmetic.py", text)
    catalog = load(".")
    assert catalog.implementation("ties_merging") == "reference_impls.task_vectors.ties_merging:ties_merging"
    assert catalog.implementation("task_arithmetic") is None


def test_a_catalog_without_code_has_no_implementations(toy):
    assert toy.implementation("ties_merging") is None and not toy.has_code


def test_a_refused_record_is_left_out_and_its_id_is_still_known(project):
    write(project, "catalog/codebases/mergekit.yaml", "name: mergekit\n")
    catalog = load(project)
    assert catalog.codebases == {} and catalog.ids("codebases") == {"mergekit"} and len(catalog.problems) == 3


def test_a_missing_catalog_is_an_error_of_one_line(tmp_path):
    with pytest.raises(CatalogError, match="catalog: no such folder"):
        load(tmp_path)


def test_reading_the_catalog_does_not_load_torch():
    code = "import sys, tools.__main__; sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'reference_impls')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
