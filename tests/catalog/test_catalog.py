"""The catalog itself is sound, and what its README and the editor's settings say about it is true."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from tools import fmt
from tools.catalog import TABLES, list_files, load, parse, validate
from tools.check import check
from tools.records import KINDS
from tools.rules import NAMED_BY
from tools.schema import schemas

ROOT = Path(__file__).parents[2]
EXAMPLE = re.compile(r"^(\S+\.yaml)\n\n```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXAMPLES = dict(EXAMPLE.findall((ROOT / "catalog" / "README.md").read_text(encoding="utf-8")))
NOT_TAKEN_UP = {  # topic -> why none of its papers is of the last two years; may only shrink
    "connectivity/interpolation": "searched for in November 2026: the last studies of this line are of 2023 and 2024",
}


@pytest.fixture(scope="module")
def catalog():
    return load(ROOT)


def test_the_catalog_has_no_problems(catalog):
    assert [str(problem) for problem in check(catalog)] == []


def test_the_readme_shows_every_kind_once():
    text = (ROOT / "catalog" / "README.md").read_text(encoding="utf-8")
    assert sorted(Path(path).parts[0].removesuffix(".yaml") for path in EXAMPLES) == sorted([*KINDS, *TABLES])
    assert text.count("```yaml") == len(EXAMPLES)


@pytest.mark.parametrize("path", EXAMPLES)
def test_an_example_of_the_readme_is_a_valid_record(catalog, path):
    kind = Path(path).parts[0].removesuffix(".yaml")
    source, problems = parse(Path(path), EXAMPLES[path])
    assert problems == [] and fmt.canonical(kind, source.value) == source.text
    if kind in TABLES:
        for value in source.value.values():
            assert validate(source, TABLES[kind], value)[0] == []
        return
    problems, record = validate(source, KINDS[kind])
    assert problems == []
    assert [value for _, target, value in NAMED_BY[kind](record) if value not in catalog.ids(target)] == []


def test_an_editor_finds_the_schema_of_every_record():
    mapping = json.loads((ROOT / ".vscode" / "settings.json").read_text())["yaml.schemas"]
    assert sorted(mapping) == sorted(f"catalog/schema/{name}" for name in schemas())
    for kind, _, path in list_files(ROOT / "catalog"):
        pattern = mapping[f"catalog/schema/{kind}.json"]
        assert path.relative_to(ROOT).match(pattern.replace("**", "*")), path


def test_every_topic_has_a_paper_of_the_last_two_years(catalog):
    in_year = Counter(paper.year for paper in catalog.papers.values())
    last = max(year for year, papers in in_year.items() if papers >= 10)  # a year counts once ten of its papers are here
    recent = {id for id, paper in catalog.papers.items() if paper.year >= last - 1}
    assert {node for node, ids in catalog.papers_by_taxonomy.items() if not recent & set(ids)} == set(NOT_TAKEN_UP)
