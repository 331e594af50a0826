"""One person has one spelling, one work has one record, and two that are two are left alone."""

# ruff: noqa: E501  (a table with one row a case)

import pytest

from tests.tools.test_check import SOUPS, TIES, check
from tests.tools.toy import replace, write
from tools.people import alike, split

CURVES = "catalog/papers/2018/garipov2018loss.yaml"


@pytest.mark.parametrize(
    "a, b",
    [
        ("Yann LeCun", "Y. LeCun"),
        ("Colin Raffel", "Colin A. Raffel"),
        ("Geoffrey E. Hinton", "G. E. Hinton"),
        ("Zhi-Hua Zhou", "Zhihua Zhou"),
        ("Zhi-Hua Zhou", "Z.-H. Zhou"),
        ("José Müller", "Jose Muller"),
        ("Joost van de Weijer", "J. van de Weijer"),
    ],
)
def test_one_person(a, b):
    (family, given), (other, names) = split(a), split(b)
    assert family == other and alike(given, names) and alike(names, given)


@pytest.mark.parametrize(
    "a, b",
    [
        ("Yi Zhang", "Yi-Kai Zhang"),
        ("John A. Smith", "John B. Smith"),
        ("Wei Li", "Wen Li"),
        ("Yiming Wang", "Yifan Wang"),
        ("Jan van Dijk", "Jan Dijk"),
        ("OpenAI", "DeepMind"),
    ],
)
def test_two_people(a, b):
    (family, given), (other, names) = split(a), split(b)
    assert family != other or not alike(given, names)


@pytest.mark.parametrize("written", ["Mohit K. Bansal", "M. Bansal", "Mohít Bansal"])
def test_a_person_under_two_spellings_is_reported(project, capsys, written):
    replace(project, SOUPS, "  - Ludwig Schmidt\n", f"  - Ludwig Schmidt\n  - {written}\n")
    code, lines = check(capsys)
    assert code == 1 and len(lines) == 1 and f"{written}" in lines[0] and "Mohit Bansal" in lines[0] and "people.yaml" in lines[0]


def test_a_slip_or_a_short_form_is_reported_where_the_two_have_a_common_co_author(project, capsys):
    replace(project, CURVES, "  - Timur Garipov\n", "  - Timur Garipov\n  - Mitchel Wortsman\n  - Gabe Ilharco\n")
    assert check(capsys)[0] == 0  # nobody knows both
    replace(project, CURVES, "  - Timur Garipov\n", "  - Timur Garipov\n  - Ludwig Schmidt\n")
    code, lines = check(capsys)
    assert code == 1 and len(lines) == 1 and "Mitchel Wortsman may be Mitchell Wortsman" in lines[0]
    replace(project, CURVES, "Gabe Ilharco", "Gab Ilharco")
    assert any("Gab Ilharco may be Gabriel Ilharco" in line for line in check(capsys)[1])


def test_two_people_are_told_apart_with_a_reason(project, capsys):
    replace(project, SOUPS, "  - Ludwig Schmidt\n", "  - Ludwig Schmidt\n  - Mohit K. Bansal\n")
    apart = "Mohit Bansal:\n  not_same:\n    - name: Mohit K. Bansal\n      why: Works on bridges.\n"
    write(project, "catalog/people.yaml", apart)
    assert check(capsys)[0] == 0
    write(project, "catalog/people.yaml", apart.replace("Works on bridges.", '""'))
    assert check(capsys)[0] == 1


def test_a_spelling_that_is_settled_is_not_used_again(project, capsys):
    replace(project, SOUPS, "Ari S. Morcos", "Ari Morcos")
    assert any("Ari Morcos is written Ari S. Morcos here" in line for line in check(capsys)[1])


def test_people_are_authors_and_orcids_have_their_check_digit(project, capsys):
    replace(project, "catalog/people.yaml", "0000-0002-1825-0097", "0000-0002-1825-0079")
    assert "its check digit would be" in check(capsys)[1][0]
    write(project, "catalog/people.yaml", "Nobody Here:\n  orcid: 0000-0002-1825-0097\n")
    assert check(capsys)[1] == [
        "catalog/people.yaml:1: no paper is by Nobody Here; write the name as the records do or delete it"
    ]


TWIN = (
    'title: "{title}"\nauthors:\n  - Prateek Yadav\n  - {second}\n  - L. Choshen\n  - Colin Raffel\n  - Mohit Bansal\nyear: 2023\n'
    "venue: arxiv\nkind: method\nurl: https://example.org/twin\ntaxonomy:\n  - merging\nsummary: A twin.\n"
)


def twin(project, title: str, second: str = "Derek Tam") -> None:
    write(project, "catalog/papers/2023/yadav2023twin.yaml", TWIN.format(title=title, second=second))


@pytest.mark.parametrize(
    "title", ["Interference When Merging Models, Resolved", "Resolving Sign Conflicts and Interference When Merging Models"]
)
def test_a_preprint_and_its_publication_are_one_record(project, capsys, title):
    twin(project, title)
    assert any(f"the people and most words of the title are those of {TIES}" in line for line in check(capsys)[1])


@pytest.mark.parametrize(
    "title", ["Compressing Models by Low Rank", "Resolving Interference When Merging Models: Part 2, Adapters"]
)
def test_other_works_of_the_same_people_are_left_alone(project, capsys, title):
    twin(project, title)
    assert not any("most words" in line for line in check(capsys)[1])
    twin(project, "Interference When Merging Models, Resolved", second="\n  - ".join(["A One", "B Two", "C Three", "D Four"]))
    assert not any("most words" in line for line in check(capsys)[1])


def test_a_paper_may_keep_the_spelling_that_it_prints(project, capsys):
    replace(project, SOUPS, "  - Ludwig Schmidt\n", "  - Ludwig Schmidt\n  - Mohit K. Bansal\n")
    write(project, "catalog/people.yaml", "Mohit Bansal:\n  spellings:\n    - Mohit K. Bansal\n")
    assert check(capsys)[0] == 1
    kept = SOUPS.rpartition("/")[2].removesuffix(".yaml")
    write(project, "catalog/people.yaml", f"Mohit Bansal:\n  spellings:\n    - Mohit K. Bansal\n  printed_in:\n    - {kept}\n")
    assert check(capsys)[0] == 0
