"""A published id stays known, and every paper's confirmations name what there is."""

import subprocess

import pytest

from tests.tools.test_check import CURVES, LIST, check
from tests.tools.toy import replace, write
from tools.__main__ import main

GIT = [
    "git",
    "-c",
    "user.name=a",
    "-c",
    "user.email=a@example.org",
    "-c",
    "commit.gpgsign=false",
    "-c",
    "init.defaultBranch=main",
]


@pytest.fixture
def released(project):
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "release"], ["tag", "v1"]):
        subprocess.run([*GIT, *command], cwd=project, check=True)
    return project


def test_an_id_that_is_gone_is_named_and_a_redirect_keeps_it(released, capsys):
    assert check(capsys, "--against", "v1")[0] == 0
    (released / LIST).rename(released / "catalog/reading_lists/second-steps.yaml")
    replace(released, "catalog/venues.yaml", "tmlr:", "tmlr-journal:")
    code, lines = check(capsys, "--against", "v1")
    assert code == 1 and lines == [
        "catalog/redirects.yaml:1: reading_lists/first-steps was published in v1 and is gone; "
        "restore it, or add `reading_lists/first-steps:` with `to:` and `why:` (to reading_lists/second-steps?)",
        "catalog/redirects.yaml:1: venues/tmlr was published in v1 and is gone; "
        "restore it, or add `venues/tmlr:` with `to:` and `why:`",
    ]
    assert check(capsys)[0] == 0
    redirects = (released / "catalog/redirects.yaml").read_text()
    more = "reading_lists/first-steps:\n  to: reading_lists/second-steps\n  why: Renamed.\n"
    write(released, "catalog/redirects.yaml", redirects + more + "venues/tmlr:\n  to: venues/tmlr-journal\n  why: Renamed.\n")
    assert check(capsys, "--against", "v1")[0] == 0
    write(released, "catalog/redirects.yaml", more + "venues/tmlr:\n  to: venues/tmlr-journal\n  why: Renamed.\n")
    assert "papers/ilharco2022editing was published in v1 and is gone" in check(capsys, "--against", "v1")[1][0]


@pytest.mark.parametrize(
    "revision, words",
    [
        ("v9", "git: "),
        ("--output=x", "is no revision"),
        ("", "is no revision"),
        ("v1:catalog", "git: "),
        ("empty", "has no catalog"),
    ],
)
def test_a_revision_that_cannot_be_read_is_named_in_one_line(released, capsys, revision, words):
    tree = subprocess.run(
        [*GIT, "hash-object", "-t", "tree", "/dev/null"], cwd=released, capture_output=True, text=True
    ).stdout.strip()
    subprocess.run([*GIT, "hash-object", "-w", "-t", "tree", "/dev/null"], cwd=released, capture_output=True, check=True)
    commit = subprocess.run([*GIT, "commit-tree", tree, "-m", "x"], cwd=released, capture_output=True, text=True).stdout.strip()
    subprocess.run([*GIT, "tag", "empty", commit], cwd=released, check=True)
    assert main(["check", f"--against={revision}"]) == 1
    error = capsys.readouterr().err.strip()
    assert words in error and "\n" not in error


@pytest.mark.parametrize(
    "text, message",
    [
        (
            "papers/a2020b:\n  to: papers/yadav2023tyes\n  why: x\n",
            "papers/yadav2023tyes is no record; did you mean 'papers/yadav2023ties'?",
        ),
        ("papers/yadav2023ties:\n  to: papers/garipov2018loss\n  why: x\n", "papers/yadav2023ties is a record"),
        ("paper/a2020b:\n  to: papers/yadav2023ties\n  why: x\n", "unknown kind 'paper'"),
        (
            "papers/a2020b:\n  to: papers/c2020d\n  why: x\npapers/c2020d:\n  to: papers/yadav2023ties\n  why: x\n",
            "papers/c2020d is no record; did you mean 'papers/yadav2023ties'?",
        ),
        ("papers/A b:\n  to: papers/yadav2023ties\n  why: x\n", "is not an id"),
        ("papers/a2020b:\n  to: papers/yadav2023ties\n", "why is missing"),
    ],
)
def test_a_redirect_that_leads_nowhere_is_named(project, capsys, text, message):
    write(project, "catalog/redirects.yaml", text)
    assert any(message in line for line in check(capsys)[1])


@pytest.mark.parametrize(
    "text, message",
    [
        ("yadav2023ties\tone place\n", "not three columns"),
        ("yadav2023tyes\tone place\tanother\n", "unknown paper 'yadav2023tyes'"),
        ("yadav2023ties\tone place\tone place\n", "confirmed twice in one place"),
        ("yadav2023ties\tfile 67058704972\tone place\n", "is no place that a reader can find"),
        ("yadav2023ties\ta\tb\ngaripov2018loss\ta\tb\n", "stands after"),
        ("yadav2023ties\ta\tb\nyadav2023ties\ta\tc\n", "stands after"),
        ("yadav2023ties\ta\u202eb\tc\n", "not three columns"),
    ],
)
def test_a_line_of_sources_that_says_nothing_is_named(project, capsys, text, message):
    write(project, "catalog/sources.tsv", text)
    assert any(message in line and line.startswith("catalog/sources.tsv:") for line in check(capsys)[1])


def test_a_catalog_without_sources_is_sound(project, capsys):
    (project / "catalog/sources.tsv").unlink()
    assert check(capsys)[0] == 0 and (project / CURVES).is_file()
