"""The data of the explorers: every record once, its choices by number, topics in the order of the tree."""

from pathlib import Path

from tools import explorer
from tools.catalog import load
from tools.pages import Pages
from tools.records import Node

ROOT = Path(__file__).parents[2]
PAGES = Pages(load(ROOT / "tests", "toy_catalog"))


def chosen(table, row):
    """Filter -> what the row has there, as ids."""
    return {
        facet["id"]: [facet["values"][n][0] for n in value] if isinstance(value, list) else facet["values"][value][0]
        for facet, value in zip(table["facets"], row[3:])
    }


def test_a_paper_and_its_choices():
    table, words = explorer.papers(PAGES.catalog, {"ties_merging"}, set())
    rows = {row[0]: (row, more) for row, more in zip(table["rows"], words, strict=True)}
    assert set(rows) == set(PAGES.catalog.papers)
    row, more = rows["yadav2023ties"]
    assert row[1].startswith("TIES-Merging: ") and row[2] == "Prateek Yadav et al."
    assert all(part in more for part in ("Mohit Bansal", "2306.01708", "Resolving Interference When Merging Models"))
    assert chosen(table, row) == {
        "topic": ["merging/task-vectors"], "venue": "neurips", "year": "2023", "code": "yes", "implementation": "yes", "measured": "no"
    }
    assert explorer.tags(table, row) == ["NeurIPS", "2023", "code", "implemented here"]
    assert chosen(table, rows["ilharco2023task"][0])["implementation"] == "no"


def test_a_method_and_what_it_needs():
    table, words = explorer.methods(PAGES.catalog, set(), PAGES.chapters)
    (row,) = (row for row in table["rows"] if row[0] == "ties_merging")
    found = chosen(table, row)
    assert (found["chapter"], found["base"], found["data"], found["training"], found["output"]) == ("task_vectors", "yes", "none", "no", "model")
    assert explorer.tags(table, row) == ["base model", "same initialisation", "gives: model", "implementation to come"]
    assert "Yadav" in words[table["rows"].index(row)] and "2306.01708" in words[table["rows"].index(row)]


def test_a_topic_follows_the_one_above_it_whatever_its_name():
    """Sorted as text, a-b would stand between a and a/x."""
    paper = next(iter(PAGES.catalog.papers.values()))
    node = Node(name="N", summary="S.", excludes="E.", introduced_by="yadav2023ties")

    class Made:
        taxonomy = {id: node for id in ("a-b", "a", "a/x", "b")}
        papers = {"p2020p": paper.model_copy(update={"taxonomy": ["a-b", "a/x"]})}
        venues, methods_by_paper = {}, {}
        papers_by_taxonomy = {"a": ["p2020p"], "a/x": ["p2020p"], "a-b": ["p2020p"], "b": []}

    table, _ = explorer.papers(Made, set(), set())
    assert [value[0] for value in table["facets"][0]["values"]] == ["a", "a/x", "a-b"]


def test_the_search_index_has_every_record_and_the_methods_first():
    index = explorer.search_index(PAGES.catalog, [("catalog/methods/index.md", "Methods"), ("catalog/parity.md", "A &#38; B")])
    places = [doc[1] for doc in index["docs"]]
    c = PAGES.catalog
    count = sum(map(len, (c.methods, c.papers, c.taxonomy, c.reading_lists, c.venues, c.codebases, c.resources)))
    assert len(set(places)) == len(places) == count + 2 and places[0] == "catalog/methods/task_arithmetic/"
    assert index["docs"][-2][1:3] == ["catalog/methods/", "Methods"] and index["docs"][-1][1:3] == ["catalog/parity/", "A & B"]
