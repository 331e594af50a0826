"""An issue form becomes a record that check has nothing against, or a report that says why not; nothing else happens."""

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.site.hostile import PAYLOADS
from tests.tools.test_check import SOUPS, TIES, check
from tools import issue
from tools.__main__ import main
from tools.records import KINDS, PaperKind

FORMS = Path(__file__).parents[2] / ".github" / "ISSUE_TEMPLATE"
PAPER = {
    "Title": "Merging by Chance: A Study",
    "Other titles": "_No response_",
    "Authors": "- Ana de la Cruz\n- Bo Li",
    "Year": "2024",
    "Venue": "NeurIPS",
    "Kind": "empirical",
    "arXiv id": "https://arxiv.org/pdf/2404.00001v3",
    "Topics": "merging",
    "Code": "https://github.com/a/b",
    "Whose code": "the authors of the paper",
    "Summary": "Says  what happens.",
    "Confirmed in": "proceedings.neurips.cc\nREADME of a/b",
}
FIX = {"Record": "papers/yadav2023ties", "Field": "year", "It says": "2023", "It should say": "2024", "Confirmed in": "NeurIPS"}
CODE = {"Paper": "wortsman2022soups", "Code link": "https://github.com/c/d", "Who wrote it": "others", "Note": "Port."}


def body(answers: dict[str, str]) -> str:
    return "\n\n".join(f"### {label}\n\n{text}" for label, text in answers.items())


def run(project, capsys, answers, number: int | None = None) -> tuple[int, str]:
    text = body(answers) if isinstance(answers, dict) else answers
    if number is not None:
        text = json.dumps({"action": "opened", "issue": {"number": number, "body": text.replace("\n", "\r\n")}})
    (project / "event.json").write_text(text, encoding="utf-8")
    code = main(["issue", "event.json"])
    return code, capsys.readouterr().out


def files(project) -> dict[str, bytes]:
    return {str(p.relative_to(project)): p.read_bytes() for p in sorted((project / "catalog").rglob("*")) if p.is_file()}


def test_a_paper_becomes_a_record_with_its_confirmations(project, capsys):
    code, said = run(project, capsys, PAPER, number=12)
    assert code == 0 and "Adds papers/cruz2024merging." in said and "Closes #12." in said
    record = yaml.safe_load((project / "catalog/papers/2024/cruz2024merging.yaml").read_text())
    assert record == {
        "title": "Merging by Chance: A Study",
        "authors": ["Ana de la Cruz", "Bo Li"],
        "year": 2024,
        "venue": "neurips",
        "kind": "empirical",
        "arxiv": "2404.00001",
        "taxonomy": ["merging"],
        "code": [{"url": "https://github.com/a/b", "official": True}],
        "summary": "Says what happens.",
    }
    assert (
        (project / "catalog/sources.tsv")
        .read_text()
        .startswith("cruz2024merging\tproceedings.neurips.cc\tREADME of a/b\nyadav2023")
    )
    assert check(capsys)[0] == 0


def test_a_correction_changes_one_field_and_nothing_else(project, capsys):
    before = files(project)
    code, said = run(project, capsys, FIX | {"Record": "https://example.org/atlas/catalog/papers/yadav2023ties/#cite"})
    assert code == 0 and "Changes year of papers/yadav2023ties." in said
    changed = {path for path, data in files(project).items() if before.get(path) != data}
    assert changed == {TIES} and (project / TIES).read_bytes() == before[TIES].replace(b"year: 2023", b"year: 2024")
    names = {"Record": "venues/tmlr", "Field": "short", "It says": "TMLR", "It should say": "T. M. L. R.", "Confirmed in": "x"}
    assert run(project, capsys, names)[0] == 0 and "short: T. M. L. R." in (project / "catalog/venues.yaml").read_text()
    assert (
        run(
            project, capsys, FIX | {"Record": "papers/ilharco2022editing", "Field": "aliases", "It says": "", "It should say": ""}
        )[0]
        == 0
    )
    assert "aliases" not in yaml.safe_load((project / "catalog/papers/2023/ilharco2023task.yaml").read_text())


def test_code_is_added_behind_what_is_there(project, capsys):
    assert run(project, capsys, CODE)[0] == 0
    code = yaml.safe_load((project / SOUPS).read_text())["code"]
    assert code[1:] == [{"url": "https://github.com/c/d", "official": False, "note": "Port."}] and len(code) == 2
    assert "stands twice" in run(project, capsys, CODE)[1]


REFUSED = {
    "known paper": (PAPER | {"arXiv id": "2306.01708"}, "the arXiv id 2306.01708 is also in"),
    "near title": (PAPER | {"Title": "Resolving Interferences When Merging Models"}, "nearly the title of"),
    "person": (PAPER | {"Authors": "M. Bansal"}, "M. Bansal may be Mohit Bansal"),
    "no id": ({label: text for label, text in PAPER.items() if label != "arXiv id"}, "no arXiv id, DOI, OpenReview id or link"),
    "year": (PAPER | {"Year": "last year"}, "write four digits"),
    "early year": (PAPER | {"Year": "2021"}, "arXiv id 2404.00001 is of 2024, after the year 2021"),
    "venue": (PAPER | {"Venue": "NeurIP"}, "did you mean 'NeurIPS'?"),
    "topic": (PAPER | {"Topics": "mergin"}, "did you mean 'merging'?"),
    "kind": (PAPER | {"Kind": "methods"}, "kind: unknown value 'methods'"),
    "one source": (PAPER | {"Confirmed in": "here"}, "1 places under 'Confirmed in'"),
    "same source": (PAPER | {"Confirmed in": "here\nhere"}, "confirmed twice in one place"),
    "script link": (PAPER | {"Code": "javascript:alert(1)"}, "not an http(s) link"),
    "bidi": (PAPER | {"Summary": "a\u202eb"}, "invisible character"),
    "heading twice": (body(PAPER) + "\n\n### Year\n\n2020", "the heading 'Year' stands twice"),
    "no form": ("Please add my paper.", "not one of the forms"),
    "too long": ("### Title\n\n" + "x" * 60_000, "60011 characters"),
    "stale": (FIX | {"It says": "2021"}, "does not say that now but '2023'"),
    "nothing": (FIX | {"It should say": "2023"}, "says that already"),
    "unknown record": (FIX | {"Record": "papers/yadav2023tyes"}, "did you mean 'yadav2023ties'?"),
    "path": (FIX | {"Record": "papers/../../../etc/passwd"}, "no record"),
    "unknown field": (FIX | {"Field": "_id"}, "has no field '_id'"),
    "field with parts": (FIX | {"Field": "code"}, "has parts"),
    "wrong type": (FIX | {"It should say": "soon"}, "year: 'soon'"),
    "needed field": (FIX | {"It should say": "_No response_"}, "year is missing"),
    "code of a method": (CODE | {"Paper": "methods/ties_merging"}, "is no paper"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_a_record_is_said_and_changes_nothing(project, capsys, name):
    answers, words = REFUSED[name]
    before = files(project)
    code, said = run(project, capsys, answers)
    assert code == 1 and words in said and "Edit the issue" in said
    assert files(project) == before


def outside_fences(text: str) -> str:
    """What GitHub reads as Markdown: fenced blocks removed by the rules of CommonMark."""
    kept, fence = [], ""
    for line in text.split("\n"):
        ticks = len(line) - len(line.lstrip("`"))
        if fence:
            fence = "" if line.strip() and line.strip() == "`" * ticks and ticks >= len(fence) else fence
        elif ticks >= 3:
            fence = "`" * ticks
        else:
            kept.append(line)
    assert not fence
    return "\n".join(kept)


@pytest.mark.parametrize(
    "payload", [*PAYLOADS, "@everyone #1 ``` $(id) `id` ${{ github.token }}", "\n```\n@all\n```\n", "'; rm -rf / #"]
)
def test_a_hostile_body_stays_data(project, capsys, payload):
    """Whatever stands in the fields, the report shows it in code blocks only, and only the one record is written."""
    before, text = files(project), f"Some words: {payload}\nmore"
    others = ("Authors", "Venue", "Topics", "Year", "arXiv id", "Code", "Kind")
    for labels in (("Title", "Summary", "Confirmed in"), (others[len(payload) % len(others)],)):
        code, said = run(project, capsys, PAPER | dict.fromkeys(labels, text), number=3)
        lines = set(outside_fences(said).split("\n")) - {""}
        assert lines <= {
            "This could not become a record yet:",
            "Edit the issue to correct it; every edit is tried again.",
            "Confirmed in, says who wrote it:",
            "`python -m tools check` finds nothing wrong. Confirm the facts before you merge.",
            "Closes #3.",
            *(f"Adds papers/{path.stem}." for path in (project / "catalog/papers/2024").glob("*.yaml")),
        }
        after = files(project)
        new = after.keys() - before.keys()
        assert len(new) == (code == 0) and {path for path in before if after[path] != before[path]} <= {"catalog/sources.tsv"}
        for path in new:
            assert yaml.safe_load(after[path])["year"] == 2024
            (project / path).unlink()
        (project / "catalog/sources.tsv").write_bytes(before["catalog/sources.tsv"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.sampled_from(["### Title", "### Record", "### Paper", "### Year", "### x", "\n\n", "papers/yadav2023ties"])
        | st.text(max_size=9)
    )
)
def test_any_text_is_read_or_refused(text):
    try:
        form, answers = issue.read("\n".join(text))
    except issue.CatalogError as error:
        assert str(error)
    else:
        assert set(answers) <= set(issue.FORMS[form])


@pytest.mark.parametrize(
    "event", ["{}", '{"issue": {"number": 1, "body": null}}', '{"issue": {"number": "1; id", "body": "x"}}', "[1]"]
)
def test_an_event_without_an_issue_is_said(project, capsys, event):
    code, said = run(project, capsys, event)
    assert code == 1 and "no issue with a number and a body" in said


def test_the_forms_ask_what_the_command_reads():
    for form, labels in issue.FORMS.items():
        written = yaml.safe_load((FORMS / f"{form}.yml").read_text(encoding="utf-8"))
        fields = [part["attributes"] for part in written["body"] if part["type"] != "markdown"]
        assert tuple(field["label"] for field in fields) == labels and written["labels"] == ["record"]
        options = {field["label"]: field["options"] for field in fields if "options" in field}
        assert set(options.get("Whose code", []) + options.get("Who wrote it", [])) <= {issue.AUTHORS, "others"}
        assert options.get("Kind", list(PaperKind.__args__)) == list(PaperKind.__args__)
        for field in options.get("Field", []):
            assert any(field in model.model_fields for model in KINDS.values()), field


def test_every_form_is_complete():
    for path in sorted(FORMS.glob("*.yml")):
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        if path.name == "config.yml":
            assert form == {"blank_issues_enabled": False}
            continue
        assert {"name", "description", "title", "labels", "body"} == set(form)
        ids = [part["id"] for part in form["body"] if part["type"] != "markdown"]
        assert len(ids) == len(set(ids)) and all(
            part["type"] in ("markdown", "input", "textarea", "dropdown") for part in form["body"]
        )
