"""Checking takes work in proportion to the number of papers: function calls are counted, because a clock is noisy."""

import sys

import pytest

from tests.tools.generate import make_catalog
from tools.check import check
from tools.catalog import load
from tools.titles import near_same


def calls(function, *arguments) -> tuple[int, object]:
    """How many functions, built-in ones included, a call enters."""
    count = 0

    def note(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        result = function(*arguments)
    finally:
        sys.setprofile(before)
    return count, result


def test_four_times_the_papers_are_four_times_the_work(tmp_path):
    work = {}
    for papers in (500, 2000):
        folder = make_catalog(tmp_path / str(papers), papers)
        work[papers], problems = calls(lambda folder=folder: check(load(folder.parent, folder.name)))
        assert problems == []
    assert 3.5 < work[2000] / work[500] < 4.5, work


def test_many_mistakes_are_no_more_than_linear_work_either(tmp_path):
    work = {}
    for papers in (150, 600):
        folder = make_catalog(tmp_path / str(papers), papers)
        (folder / "venues.yaml").unlink()
        work[papers], problems = calls(lambda folder=folder: check(load(folder.parent, folder.name)))
        assert len([problem for problem in problems if "unknown venue" in problem.what]) == papers
    assert work[600] / work[150] < 4.5, work


@pytest.mark.parametrize("title", ["merging models with one hostile word {}", "{} merging models again", "a the of {} in on"])
def test_titles_made_to_meet_are_compared_a_bounded_number_of_times(title):
    work = {n: calls(list, near_same((f"p{i}", title.format(f"x{i}")) for i in range(n)))[0] for n in (250, 1000)}
    assert work[1000] / work[250] < 4.5, work
