"""The comment on a pull request: counts, records as a reader will see them, failing rules, and nothing that acts."""

import shutil

from tests.tools.test_check import LIST, TIES
from tests.tools.test_issue import PAPER, outside_fences, run
from tests.tools.toy import replace, write
from tools.__main__ import main


def report(project, capsys) -> str:
    assert main(["report", "--before", "before"]) == 0
    return capsys.readouterr().out


def test_a_change_is_counted_shown_and_judged(project, capsys):
    shutil.copytree(project / "catalog", project / "before")
    assert "No record is new or changed." in report(project, capsys)
    assert run(project, capsys, PAPER)[0] == 0
    replace(project, TIES, "year: 2023", "year: 2022")
    (project / LIST).unlink()
    said = report(project, capsys)
    assert "| papers | 5 | 6 | +1 |" in said and "| reading lists | 1 | 0 | -1 |" in said
    assert "### New: papers/cruz2024merging" in said and "@inproceedings{cruz2024merging," in said
    assert "Ana de la Cruz, Bo Li" in outside_fences(said)
    assert "### Changed: papers/yadav2023ties" in said and "-year: 2023\n+year: 2022" in said
    assert "finds 2 to mend" in said and "after the year 2022" in said
    assert "reading_lists/first-steps was published in the base branch and is gone" in said


def test_texts_of_strangers_act_nowhere(project, capsys):
    shutil.copytree(project / "catalog", project / "before")
    title = "@everyone see #1: [a](javascript:x) **b** ``` <img src=x onerror=y> {{ z }}"
    assert run(project, capsys, PAPER | {"Title": title, "Authors": "@bot <b>"})[0] == 0
    outside = outside_fences(report(project, capsys))
    assert "&#64;&#8288;everyone see &#35;&#8288;1" in outside and "&#64;&#8288;bot" in outside
    assert [part for part in ("@", "<", "](", "{{", " #1") if part in outside] == [], outside
    write(project, "catalog/papers/2023/x`@all`.yaml", "```\n@all")
    outside = outside_fences(report(project, capsys))
    assert "@" not in outside


def test_a_large_change_fits_into_a_comment(project, capsys):
    shutil.copytree(project / "catalog", project / "before")
    text = (project / TIES).read_text()
    for number in range(60):
        write(project, f"catalog/papers/2023/yadav2023n{number}.yaml", text.replace("summary: ", "summary: " + "word " * 250))
    said = report(project, capsys)
    assert len(said) < 65_536 and "and 35 more records." in said or "The rest is left out" in said
    outside_fences(said)
