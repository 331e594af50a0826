"""`python -m tools refresh`: what has become of papers is proposed from two sources, told from one, written when asked."""

from dataclasses import replace

import pytest
import yaml

from tests.tools import apis as real
from tests.tools.apis import ARXIV, CROSSREF, DBLP, S2, Work, feed, made, text
from tests.tools.toy import write
from tools.__main__ import main
from tools.catalog import load
from tools.links import Outcome
from tools.lookup import guard
from tools.lookup.guard import Unavailable

PATH = "catalog/papers/2024/lovelace2024rotating.yaml"
RECORD = """title: "Rotating Task Vectors: Merging Without Interference"
authors:
  - Ada Lovelace
  - Jürgen Müller-Groß
  - Wei Li
year: 2024
venue: arxiv
kind: method
arxiv: "2405.01234"
taxonomy:
  - merging/task-vectors
code:
  - url: https://github.com/ada/rotating
    official: true
summary: Rotates task vectors before they are added.
"""


@pytest.fixture
def record(apis, project, monkeypatch, capsys):
    """The toy project with a preprint; arXiv knows the other papers as they are recorded, nobody else knows them."""

    def nothing(host, port):
        raise Unavailable(f"{host} is not a known host")

    monkeypatch.setattr(guard, "_resolve", nothing)
    monkeypatch.setattr("tools.refresh.GAP", 0.0)
    write(project, PATH, RECORD)
    assert main(["check"]) == 0
    capsys.readouterr()
    others = [Work(p.title, tuple(p.authors), arxiv=p.arxiv, comment="") for id, p in load(project).papers.items() if p.arxiv]
    others = [work for work in others if work.arxiv != "2405.01234"]

    def arxiv(path, query, body):
        return real.arxiv([*apis.works, *others], path, query, body)

    apis.replies[ARXIV] = arxiv
    return project / PATH


def refresh(capsys, *arguments: str) -> str:
    assert main(["refresh", *arguments]) == 0
    return capsys.readouterr().out


def test_a_published_preprint_is_proposed_and_then_written(apis, project, record, capsys):
    apis.works = [replace(apis.works[0], doi="10.5555/iclr.2025.7")]
    out = refresh(capsys)
    assert "1 edits proposed, 0 things to look at" in out
    assert "- `published at iclr 2025 according to Crossref, DBLP, Semantic Scholar`" in out
    assert "-year: 2024\n-venue: arxiv\n+year: 2025\n+venue: iclr" in out and "+openreview: aB3dEf6hIj" in out
    assert record.read_text() == RECORD
    assert "1 edits made" in refresh(capsys, "--write")
    found = yaml.safe_load(record.read_text())
    assert (found["year"], found["venue"], found["openreview"], found["doi"]) == (
        2025,
        "iclr",
        "aB3dEf6hIj",
        "10.5555/iclr.2025.7",
    )
    assert main(["check"]) == 0  # canonical, and no rule is broken
    assert "0 edits proposed" in refresh(capsys)


def test_one_source_alone_is_told_and_not_proposed(apis, record, capsys):
    apis.replies[S2] = lambda *_: made([None])
    out = refresh(capsys, "--write")
    assert "`published at iclr 2025 according to DBLP alone; confirm it and edit the record`" in out
    assert record.read_text() == RECORD


def test_sources_that_disagree_are_told_and_not_proposed(apis, record, capsys):
    apis.replies[S2] = lambda path, query, body: real.s2(
        [replace(apis.works[0], long_venue="Conference on Neural Information Processing Systems")], path, query, body
    )
    out = refresh(capsys, "--write")
    assert "`perhaps published; DBLP says iclr; Semantic Scholar says neurips`" in out and record.read_text() == RECORD


def test_another_paper_of_the_same_title_is_no_publication(apis, record, capsys):
    other = Work(authors=("Bob Cook", "Eve Fry"), arxiv=None)
    apis.replies[DBLP] = lambda path, query, body: real.dblp([other], path, query, body)
    apis.replies[S2] = lambda *_: made([real.s2_paper(other)])
    assert "0 edits made, 0 things" in refresh(capsys, "--write") and record.read_text() == RECORD


def test_an_id_that_another_record_has_is_told(apis, project, record, capsys):
    apis.works = [replace(apis.works[0], openreview="xtaX3WyCj1")]
    out = refresh(capsys, "--write")
    assert "under an id that yadav2023ties has" in out and record.read_text() == RECORD


def preprint(apis) -> None:
    apis.replies[S2] = lambda *_: made([None])
    apis.replies[DBLP] = lambda *_: made({"result": {"hits": {"@total": "0"}}})


def test_a_renamed_preprint_keeps_its_old_title_as_an_alias(apis, project, record, capsys):
    preprint(apis)
    apis.works = [replace(apis.works[0], title="Turning Updates Before They Are Merged")]
    out = refresh(capsys, "--write")
    assert "renamed on arXiv to 'Turning Updates Before They Are Merged'" in out
    found = yaml.safe_load(record.read_text())
    assert (found["title"], found["aliases"]) == ("Turning Updates Before They Are Merged", [Work.title])
    assert main(["check"]) == 0


def test_a_new_title_that_another_record_has_is_told(apis, project, record, capsys):
    preprint(apis)
    apis.works = [replace(apis.works[0], title="TIES-Merging: Resolving Interference When Merging Models")]
    out = refresh(capsys, "--write")
    assert "nearly the title of yadav2023ties" in out and record.read_text() == RECORD


def test_another_paper_under_the_id_is_told(apis, record, capsys):
    preprint(apis)
    apis.works = [Work(title="Cooking with Gas at Home", authors=("Bob Cook",))]
    out = refresh(capsys, "--write")
    assert "arXiv has another paper under 2405.01234: 'Cooking with Gas at Home'" in out and record.read_text() == RECORD


def test_an_unknown_id_is_told(apis, record, capsys):
    preprint(apis)
    apis.works = []
    assert "`arXiv has no 2405.01234`" in refresh(capsys)


def test_withdrawn_preprints_get_a_note_once(apis, project, record, capsys):
    preprint(apis)
    apis.works = [replace(apis.works[0], comment="This paper has been withdrawn by the authors")]
    assert "withdrawn from arXiv" in refresh(capsys, "--write")
    assert yaml.safe_load(record.read_text())["note"] == "Withdrawn from arXiv by its authors."
    assert main(["check"]) == 0 and "0 edits proposed, 0 things" in refresh(capsys)


def test_a_retraction_gets_a_note(apis, project, record, capsys):
    preprint(apis)
    write(
        project,
        PATH,
        RECORD.replace('arxiv: "2405.01234"', 'arxiv: "2405.01234"\ndoi: 10.5555/x.1').replace("venue: arxiv", "venue: tmlr"),
    )
    work = replace(apis.works[0], doi="10.5555/x.1")
    notice = {"updated-by": [{"type": "correction", "DOI": "10.5555/x.2"}, {"type": "retraction", "DOI": "10.5555/x.3"}]}
    apis.replies[CROSSREF] = lambda *_: made({"message": {"items": [real.crossref_work(work) | notice]}})
    assert "retraction registered at Crossref" in refresh(capsys, "--write")
    assert yaml.safe_load(record.read_text())["note"] == "Retracted: Crossref has a notice for the DOI 10.5555/x.1."
    apis.replies[CROSSREF] = lambda *_: made(
        {"message": {"items": [real.crossref_work(work) | {"updated-by": notice["updated-by"][:1]}]}}
    )
    write(project, PATH, RECORD)
    assert "0 edits" in refresh(capsys)


def test_code_that_moved_is_proposed_where_it_is_a_repository(apis, project, record, capsys, monkeypatch):
    preprint(apis)
    moves = {
        "https://github.com/ada/rotating": "https://github.com/ada-lab/rotation",
        "https://github.com/prateeky2806/ties-merging": "https://github.com/login?return_to=x",
    }
    monkeypatch.setattr(
        "tools.refresh.check_all",
        lambda web, urls: {url: Outcome("moved", "", moves[url]) if url in moves else Outcome("well") for url in urls},
    )
    out = refresh(capsys, "--write")
    assert yaml.safe_load(record.read_text())["code"] == [{"url": "https://github.com/ada-lab/rotation", "official": True}]
    assert "`the code 'https://github.com/prateeky2806/ties-merging' leads to 'https://github.com/login?return_to=x'`" in out


@pytest.mark.parametrize("host", [ARXIV, CROSSREF, DBLP, S2])
@pytest.mark.parametrize("reply", [text("oops", 500), text("{"), text("", 429, Retry_After="9999"), made({"a": 1})], ids=str)
def test_a_source_that_fails_is_told_and_changes_nothing(apis, record, capsys, host, reply):
    apis.replies[host] = lambda *_: reply
    out = refresh(capsys, "--write")
    assert out.startswith("# Refresh\n")
    if host in (DBLP, S2):
        assert record.read_text() == RECORD  # one source less is one too few


def test_without_a_network_the_exit_code_is_two(apis, record, capsys):
    apis.replies |= dict.fromkeys((ARXIV, CROSSREF, DBLP, S2), lambda *_: text("oops", 500))
    write_back = record.read_text()
    assert main(["refresh", "--write"]) == 2
    out, err = capsys.readouterr()
    assert "nothing is said about new titles" in out and "is there a network?" in err
    assert record.read_text() == write_back


def test_a_record_with_a_comment_is_left_alone(apis, record, capsys):
    record.write_text("# mine\n" + RECORD)
    out = refresh(capsys, "--write")
    assert "edit it by hand (a comment would be lost)" in out and record.read_text() == "# mine\n" + RECORD


def test_a_strangers_title_can_not_leave_the_report_or_the_record(apis, project, record, capsys):
    preprint(apis)
    title = "Turning ``` @someone <img src=x onerror=alert(1)> [a](javascript:b) {{ 7 * 7 }} # x: y"
    apis.works = [replace(apis.works[0], title=title)]
    out = refresh(capsys)
    fences = [line for line in out.splitlines() if line.startswith("```")]
    assert len(fences) == 2 and all("````" in fence for fence in fences)
    outside = "".join(line for line in out.partition("````")[0].splitlines() if not line.startswith("- `"))
    assert "@someone" not in outside and "<img" not in outside
    refresh(capsys, "--write")
    assert "onerror" not in yaml.safe_load(record.read_text())["title"] and main(["check"]) == 0


def test_feeds_without_entries_are_an_answer(apis, record, capsys):
    preprint(apis)
    apis.replies[ARXIV] = lambda *_: feed([])
    assert "arXiv has no 2306.01708" in refresh(capsys)
