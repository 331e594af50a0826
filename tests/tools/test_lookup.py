"""`python -m tools new paper ID` against a server that answers like the public APIs: whole records, and nothing wrong in them."""

import json
import time
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tools import apis as real
from tests.tools.apis import ACL, ARXIV, CROSSREF, DBLP, HOSTS, OPENALEX, OPENREVIEW, S2, Work, made, text
from tools import fmt
from tools.__main__ import main
from tools.catalog import load, parse
from tools.importing.items import posted
from tools.importing.match import Index
from tools.links import in_text
from tools.lookup import arxiv, crossref, dblp, found, openalex, openreview, semantic_scholar
from tools.lookup.agree import Agreement, same_people, venue_of
from tools.lookup.ask import SOURCES, Wanted, ask, understood
from tools.lookup.found import Found
from tools.lookup.guard import Unavailable
from tools.lookup.http import Web
from tools.lookup.nearest import topics

ROOT = Path(__file__).parents[2]
TOY_CATALOG = load(ROOT / "tests", "toy_catalog")
PATH = "catalog/papers/2025/lovelace2025rotating.yaml"
JOURNAL = Work(
    doi="10.5555/tmlr.2025.77",
    openreview=None,
    dblp_venue="Trans. Mach. Learn. Res.",
    long_venue="Transactions on Machine Learning Research",
    volume="26",
    issue="3",
    pages="1--38",
)
LINGUIST = Work(
    arxiv=None,
    doi="10.18653/v1/2025.acl-long.77",
    openreview=None,
    acl="2025.acl-long.77",
    dblp_venue="ICLR",  # the toy catalog has no ACL
    pages="1-12",
)


@cache
def whole_catalog():
    return load(ROOT)


def new(*arguments: str) -> int:
    return main(["new", "paper", *arguments])


def record(project, path: str = PATH) -> dict:
    return yaml.safe_load((project / path).read_text(encoding="utf-8"))


def blanks(value: object) -> list[str]:
    if isinstance(value, dict):
        return [key for key, item in value.items() if blanks(item)]
    if isinstance(value, list):
        return [blank for item in value for blank in blanks(item)]
    return [value] if str(value).startswith("TODO") else []


def test_the_record_is_whole_and_canonical(apis, project, capsys):
    assert new("2405.01234") == 0
    out, err = capsys.readouterr()
    assert out == f"wrote {PATH}\n"
    assert "sources: arXiv, OpenAlex, Semantic Scholar, DBLP, OpenReview" in err
    found = record(project)
    assert found.pop("taxonomy") and found == {
        "title": "Rotating Task Vectors: Merging Without Interference",
        "authors": ["Ada Lovelace", "Jürgen Müller-Groß", "Wei Li"],
        "year": 2025,
        "venue": "iclr",
        "kind": "TODO: method, survey, benchmark, tool, application, empirical or theory",
        "arxiv": "2405.01234",
        "openreview": "aB3dEf6hIj",
        "code": [{"url": "https://github.com/ada/rotating", "official": "TODO: true when the paper's authors published it"}],
        "summary": "TODO: one or two sentences in your own words",
    }
    text = (project / PATH).read_text()
    assert main(["fmt"]) == 0 and (project / PATH).read_text() == text
    capsys.readouterr()
    assert main(["check"]) == 1
    assert all("is left from the template" in line for line in capsys.readouterr().out.splitlines())


def test_no_abstract_is_stored(apis, project):
    new("2405.01234")
    assert "SECRET" not in (project / PATH).read_text()


@pytest.mark.parametrize(
    "id",
    [
        "2405.01234",
        "arXiv:2405.01234v3",
        "https://arxiv.org/abs/2405.01234",
        "https://arxiv.org/pdf/2405.01234v1.pdf",
        "https://doi.org/10.48550/arXiv.2405.01234",
        "https://openreview.net/forum?id=aB3dEf6hIj",
        "aB3dEf6hIj",
        "Rotating Task Vectors: Merging without Interference",
    ],
)
def test_every_way_to_name_a_paper_leads_to_its_record(apis, project, id):
    assert new(id) == 0
    found = record(project)
    assert (found["arxiv"], found["openreview"], found["venue"], found["year"]) == ("2405.01234", "aB3dEf6hIj", "iclr", 2025)


@pytest.mark.parametrize("id", ["10.5555/tmlr.2025.77", "https://doi.org/10.5555/TMLR.2025.77", "2405.01234"])
def test_preprint_and_published_version_are_one_record(apis, project, id):
    apis.works = [JOURNAL]
    assert new(id) == 0
    found = record(project)
    assert (found["venue"], found["year"], found["arxiv"], found["doi"], found["where"]) == (
        "tmlr",
        2025,
        "2405.01234",
        "10.5555/tmlr.2025.77",
        "26(3):1-38",
    )


@pytest.mark.parametrize("id", ["2025.acl-long.77", "https://aclanthology.org/2025.acl-long.77/", "10.18653/v1/2025.acl-long.77"])
def test_the_acl_anthology_is_asked_in_bibtex(apis, project, id):
    apis.works = [LINGUIST]
    assert new(id) == 0
    found = record(project)
    assert ACL in apis.hosts()
    assert (found["title"], found["authors"][1], found["doi"]) == (
        LINGUIST.title,
        "Jürgen Müller-Groß",
        "10.18653/v1/2025.acl-long.77",
    )
    assert (found["venue"], found["year"], found["where"]) == ("iclr", 2025, "1-12")


def test_a_preprint_stays_one(apis, project, capsys):
    apis.works = [Work(openreview=None, dblp_venue="", long_venue="arXiv.org", comment="Submitted to ICML")]
    assert new("2405.01234") == 0
    found = record(project, "catalog/papers/2024/lovelace2024rotating.yaml")
    assert (found["venue"], found["year"]) == ("arxiv", 2024)
    assert "the authors' remark on arXiv is 'Submitted to ICML'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "venue", ["Submitted to ICLR 2025", "ICLR 2025 Conference Withdrawn Submission", "Rejected at ICLR 2025"]
)
def test_a_submission_is_not_a_publication(apis, project, venue):
    apis.works = [Work(openreview_venue=venue, dblp_venue="", long_venue="arXiv.org")]
    assert new("https://openreview.net/forum?id=aB3dEf6hIj") == 0
    assert record(project, "catalog/papers/2024/lovelace2024rotating.yaml")["venue"] == "arxiv"


# --- sources that disagree --------------------------------------------------------------------------------------

OTHER_TITLE = "Rotating Task Vectors: Merging Without Inference"
LIES = {  # what DBLP says instead, the field in dispute, what is said of it
    "year": ({"year": 2026}, "year", "OpenReview says 2025; DBLP says 2026"),
    "venue": ({"dblp_venue": "NeurIPS"}, "venue", "OpenReview, Semantic Scholar say iclr; DBLP says neurips"),
    "title": (
        {"title": OTHER_TITLE},
        "title",
        f"OpenReview, arXiv, OpenAlex, Semantic Scholar say {Work.title}; DBLP says {OTHER_TITLE}",
    ),
    "authors": ({"authors": ("Ada Lovelace", "Wei Li")}, "authors", "Jürgen Müller-Groß, Wei Li; DBLP says Ada Lovelace, Wei Li"),
    "order": ({"authors": ("Wei Li", "Ada Lovelace", "Jürgen Müller-Groß")}, "authors", "DBLP says Wei Li, Ada Lovelace, Jürgen"),
}


def lying(apis, **lie) -> None:
    apis.replies[DBLP] = lambda path, query, body: real.dblp([replace(apis.works[0], arxiv=None, **lie)], path, query, body)


@pytest.mark.parametrize("lie, field, says", LIES.values(), ids=LIES)
def test_what_two_sources_dispute_is_written_from_neither(apis, project, capsys, lie, field, says):
    lying(apis, **lie)
    assert new("2405.01234", "--id", "lovelace2025rotating") == 0
    err = capsys.readouterr().err
    assert f"{field}: " in err and "left as TODO" in err
    value = record(project)[field]
    value = value[0] if isinstance(value, list) else value
    assert value.startswith("TODO: ") and says in value and says in err
    assert set(blanks(record(project))) - {"kind", "code", "summary"} <= {field, "year", value}


@pytest.mark.parametrize("lie, field, says", LIES.values(), ids=LIES)
def test_a_preferred_source_decides_and_the_dispute_is_still_said(apis, project, capsys, lie, field, says):
    lying(apis, **lie)
    assert new("2405.01234", "--prefer", "dblp", "--id", "lovelace2025rotating") == 0
    assert "taken from dblp" in capsys.readouterr().err
    value, told = record(project)[field], next(iter(lie.values()))
    assert value == (list(told) if isinstance(told, tuple) else {"NeurIPS": "neurips"}.get(told, told))


def test_the_year_of_the_id_is_of_the_version_that_the_record_is_of(apis, project, capsys):
    lying(apis, year=2026)
    assert new("2405.01234") == 0
    assert (project / PATH).is_file() and "is made from what is in dispute; --id chooses another" in capsys.readouterr().err


def test_an_unknown_preference_is_refused(apis, capsys):
    assert new("2405.01234", "--prefer", "Google") == 1
    assert "no such source; write one of arXiv" in capsys.readouterr().err and not apis.asked


def test_an_older_title_becomes_an_alias(apis, project, capsys):
    older = replace(apis.works[0], title="Spinning: Rotating Task Vectors That Do Not Interfere")
    apis.works = [replace(older, title="Rotating Task Vectors That Do Not Interfere")]
    apis.replies[ARXIV] = lambda path, query, body: real.arxiv([older], path, query, body)
    assert new("2405.01234", "--id", "lovelace2025rotating") == 0
    found = record(project)
    assert (found["title"], found["aliases"]) == ("Rotating Task Vectors That Do Not Interfere", [older.title])
    assert "the others are aliases" in capsys.readouterr().err


def test_a_venue_that_we_do_not_have_is_said_and_left_open(apis, project, capsys):
    apis.works = [replace(JOURNAL, dblp_venue="Journal of Odd Results", long_venue="Journal of Odd Results")]
    assert new("2405.01234") == 0
    assert record(project)["venue"] == "TODO: an id of catalog/venues.yaml; said to be 'Journal of Odd Results'"
    assert "'Journal of Odd Results' is not in catalog/venues.yaml" in capsys.readouterr().err


def test_a_workshop_is_not_the_conference(apis, project):
    apis.works = [Work(dblp_venue="", long_venue="", openreview_venue="ICLR 2025 Workshop on Merging")]
    assert new("aB3dEf6hIj") == 0
    assert record(project)["venue"] == "TODO: an id of catalog/venues.yaml; said to be 'ICLR 2025 Workshop on Merging'"


@pytest.mark.parametrize(
    "text, id",
    [
        ("NeurIPS", "neurips"),
        ("Advances in Neural Information Processing Systems 36", "neurips"),
        ("NIPS", "neurips"),
        ("Trans. Mach. Learn. Res.", "tmlr"),
        ("Accepted by TMLR", "tmlr"),
        ("ACL (1)", "acl"),
        ("ACL (Findings)", "acl-findings"),
        ("EMNLP (Findings)", "emnlp-findings"),
        ("Findings of the Association for Computational Linguistics: EMNLP 2024", "emnlp-findings"),
        ("ICML (Findings)", None),
        ("EMNLP (Industry Track)", "emnlp-industry"),
        ("Proceedings of the 2024 Conference on Empirical Methods in Natural Language Processing", "emnlp"),
        (
            "Proceedings of the 2024 Conference of the North American Chapter of the Association for Computational Linguistics: "
            "Human Language Technologies (Volume 1: Long Papers)",
            "naacl",
        ),
        (
            "Proceedings of the 62nd Annual Meeting of the Association for Computational Linguistics (Volume 1: Long Papers)",
            "acl",
        ),
        ("Proceedings of the AAAI Conference on Artificial Intelligence", "aaai"),
        ("Lecture Notes in Computer Science; Computer Vision – ECCV 2024", "eccv"),
        ("2023 IEEE/CVF International Conference on Computer Vision (ICCV)", "iccv"),
        ("2025 IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)", "cvpr"),
        ("Computer Vision and Pattern Recognition", "cvpr"),
        ("CVPR Workshops", "cvpr-workshops"),
        ("ICLR 2024 Workshop on Something", None),
        ("SPIGM @ ICLR 2024", None),
        ("ICLR 2024 Tiny Papers", None),
        ("arXiv (Cornell University)", "arxiv"),
        ("arXiv.org", "arxiv"),
        ("CoRR", "arxiv"),
        ("Nat. Mac. Intell.", "nature-mi"),
        ("IEEE Trans. Neural Networks Learn. Syst.", "tnnls"),
        ("Journal of Odd Results", None),
    ],
)
def test_what_databases_call_a_venue_is_ours_or_unknown(text, id):
    catalog = whole_catalog()
    assert venue_of(text, Index(catalog).venues, catalog) == (id if id in catalog.venues else None)


def test_records_of_the_catalog_come_out_as_they_are(apis):
    """Each fifth paper, from what the databases would say about it, with the names that they have for its venue."""
    catalog, web, seen = whole_catalog(), Web(cache=None), 0
    for paper in [catalog.papers[id] for id in sorted(catalog.papers)[::5]]:
        venue, preprint = catalog.venues[paper.venue], paper.venue == "arxiv"
        kind = next((kind for kind in ("arxiv", "doi", "openreview") if getattr(paper, kind)), None)
        if kind is None or (preprint and paper.openreview):
            continue
        work = Work(
            title=paper.title,
            authors=tuple(paper.authors),
            first=posted(paper.arxiv)[0] if paper.arxiv else paper.year,
            year=paper.year,
            arxiv=paper.arxiv,
            doi=paper.doi.lower() if paper.doi else None,
            openreview=paper.openreview,
            dblp_venue="" if preprint else (venue.aliases or [venue.short])[-1],
            long_venue="arXiv.org" if preprint else venue.name,
            openreview_venue=f"{venue.short} {paper.year} poster",
            comment="",
        )
        apis.works, seen = [work], seen + 1
        found = Agreement(ask(web, Wanted(kind, getattr(work, kind))), catalog).record
        for field in ("title", "authors", "year", "venue", "arxiv", "doi", "openreview"):
            assert found.get(field) == (work.doi if field == "doi" else getattr(paper, field)), (paper.id, field)
    assert seen > 20


def test_an_id_is_kept_where_its_own_source_does_not_answer(apis, project):
    apis.works = [replace(JOURNAL, arxiv=None)]
    apis.replies[CROSSREF] = FAULTS["500"]
    apis.replies[OPENALEX] = FAULTS["500"]
    apis.replies[S2] = lambda *_: made(real.s2_paper(replace(JOURNAL, arxiv=None, doi=None)))
    assert new("10.5555/tmlr.2025.77") == 0
    assert record(project)["doi"] == "10.5555/tmlr.2025.77"


def test_an_unfinished_record_is_known_too(apis, project, capsys):
    assert new("2405.01234") == 0
    assert new("aB3dEf6hIj", "--id", "lovelace2025other") == 1
    assert f"{PATH} is this paper; nothing written" in capsys.readouterr().err


def test_withdrawn_work_is_marked(apis, project, capsys):
    apis.works = [
        Work(
            comment="This paper has been withdrawn by the authors due to an error", openreview=None, dblp_venue="", long_venue=""
        )
    ]
    assert new("2405.01234") == 0
    assert "has been withdrawn" in record(project, "catalog/papers/2024/lovelace2024rotating.yaml")["note"]
    assert "retracted or withdrawn: arXiv" in capsys.readouterr().err


@pytest.mark.parametrize(
    "a, b, same",
    [
        (["Yao-Ching Yu", "C. C. Kuo"], ["Yao Ching Yu", "Chun-Chih Kuo"], True),
        (["Ziqi Ye"], ["Ye Ziqi"], True),
        (["Jürgen Groß"], ["J. Gross"], True),
        (["Le Yu"], ["Li Yu"], False),
        (["Le Yu"], ["Le Yang"], False),
        (["Le Yu", "Bowen Yu"], ["Bowen Yu", "Le Yu"], False),
        (["Le Yu"], ["Le Yu", "Bowen Yu"], False),
    ],
)
def test_names_are_compared_as_persons(a, b, same):
    assert same_people(tuple(a), tuple(b)) is same


# --- sources that fail or lie -----------------------------------------------------------------------------------

FAULTS = {
    "404": lambda *_: text("Resource not found.", 404),
    "500": lambda *_: text("oops", 500),
    "429": lambda *_: text('{"message": "Too Many Requests"}', 429, Retry_After="3600"),
    "broken": lambda *_: text('{"message": {"title": ["'),
    "wrong types": lambda *_: made(
        {"message": [1], "notes": {"a": 1}, "result": {"hits": 7}, "title": {"x": []}, "authorships": 3, "data": "x"}
    ),
    "a list": lambda *_: made([None, [], {}, "x"]),
    "deep": lambda *_: text("[" * 100_000),
    "not UTF-8": lambda *_: (200, {}, b"\xff\xfe<feed/>"),
    "bomb": lambda *_: text(
        '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><feed xmlns="http://www.w3.org/2005/Atom"><entry>&b;</entry></feed>'
    ),
    "large": lambda *_: (200, {}, b" " * 20_000),
    "into the house": lambda *_: text("", 302, Location="http://169.254.169.254/latest/meta-data"),
    "to a file": lambda *_: text("", 302, Location="file:///etc/passwd"),
    "in circles": lambda path, *_: text("", 302, Location="?again"),
    "nowhere": lambda *_: text("", 302, Location="http://[bad"),
}


@pytest.mark.parametrize("host", [OPENALEX, S2, DBLP, OPENREVIEW])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_one_failing_source_leaves_the_others(apis, project, capsys, monkeypatch, host, fault):
    monkeypatch.setattr("tools.lookup.http.LARGEST", 10_000)
    apis.replies[host] = fault
    assert new("2405.01234", "--id", "lovelace2025rotating") == 0
    found = record(project)
    # without DBLP only Semantic Scholar names the conference, with the year of the preprint
    year = "TODO: of the venue; Semantic Scholar says 2024, which may be the preprint's" if host == DBLP else 2025
    assert (found["title"], found["year"], found["venue"]) == (Work.title, year, "iclr")
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_when_all_sources_fail_it_is_said_and_nothing_is_written(apis, project, capsys, monkeypatch, fault):
    monkeypatch.setattr("tools.lookup.http.LARGEST", 10_000)
    apis.replies = dict.fromkeys(HOSTS, fault)
    before = sorted(project.rglob("*.yaml"))
    assert new("2405.01234") == 1
    out, err = capsys.readouterr()
    assert out == "" and "no source knows arxiv 2405.01234 or could be asked; nothing written" in err.splitlines()[-1]
    assert sorted(project.rglob("*.yaml")) == before


def test_another_papers_record_is_set_aside(apis, project, capsys):
    other = Work(title="Cooking with Gas and Other Stories", authors=("Bob Cook", "Eve Fry"))
    apis.replies[S2] = lambda path, query, body: real.s2([other], path, query, body)
    assert new("2405.01234") == 0
    assert record(project)["title"] == Work.title
    assert "set aside, as it is about another paper: arXiv has 'Rotating" in capsys.readouterr().err


def test_without_the_papers_own_source_two_stories_are_one_too_many(apis, project, capsys):
    other = Work(title="Cooking with Gas and Other Stories", authors=("Bob Cook", "Eve Fry"))
    apis.replies[S2] = lambda path, query, body: real.s2([other], path, query, body)
    apis.replies[ARXIV] = FAULTS["500"]
    assert new("2405.01234") == 1
    assert "the sources name different papers for arxiv 2405.01234" in capsys.readouterr().err
    assert not (project / PATH).exists()


def test_an_answer_with_another_id_is_set_aside(apis, project, capsys):
    apis.works = [replace(JOURNAL, arxiv=None)]
    apis.replies[CROSSREF] = lambda *_: made(
        {"message": real.crossref_work(replace(JOURNAL, doi="10.5555/other", title="Quite another title here"))}
    )
    assert new("10.5555/tmlr.2025.77") == 0
    assert record(project)["title"] == Work.title
    assert "Crossref was asked for 10.5555/tmlr.2025.77 and answers with 10.5555/other" in capsys.readouterr().err


def test_two_papers_of_one_title_are_told_apart_by_the_reader(apis, project, capsys):
    apis.works = [Work(arxiv=None, openreview="aaaaaaaaa1"), Work(arxiv=None, openreview="aaaaaaaaa2", authors=("Bob Cook",))]
    assert new(Work.title) == 1
    assert "several papers have the title" in capsys.readouterr().err and not (project / PATH).exists()


def test_markup_and_hidden_characters_do_not_reach_the_record(apis, project):
    title = "Rotating <i>Task</i> Vectors:\u202e Merging\x07 <script src=x>Without</script> Interference &amp; <b id='x'>More</b>"
    apis.works = [Work(title=title)]
    assert new("2405.01234") == 0
    assert record(project)["title"] == "Rotating Task Vectors: Merging Without Interference & More"


@pytest.mark.parametrize(
    "title", ["x: [a, b]", "- not a list", "{{ 7 * 7 }}", "key: 'value' # comment", "!!python/object:os.system x y"]
)
def test_a_title_stays_text_in_the_record(apis, project, title):
    apis.works = [Work(title=f"{title} and more words")]
    assert new("2405.01234", "--id", "lovelace2025rotating") == 0
    assert record(project)["title"] == f"{title} and more words"


# --- ids, known papers, files -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "id",
    [
        "2306.01708",
        "https://arxiv.org/abs/2306.01708v2",
        "xtaX3WyCj1",
        "TIES-Merging: Resolving Interference when Merging Models",
    ],
)
def test_a_paper_of_the_catalog_is_not_asked_for_again(apis, capsys, id):
    assert new(id) == 1
    assert "catalog/papers/2023/yadav2023ties.yaml is this paper" in capsys.readouterr().err and not apis.asked


def test_a_paper_that_turns_out_to_be_known_is_not_written(apis, project, capsys):
    apis.works = [replace(JOURNAL, arxiv="2306.01708")]
    before = sorted(project.rglob("*.yaml"))
    assert new("10.5555/tmlr.2025.77") == 1
    assert "yadav2023ties.yaml is this paper" in capsys.readouterr().err
    assert sorted(project.rglob("*.yaml")) == before


def test_an_id_that_is_taken_gets_a_letter(apis, project):
    (project / PATH).parent.mkdir(parents=True, exist_ok=True)
    (project / PATH).write_text("mine\n")
    assert new("2405.01234") == 0
    assert (project / PATH).read_text() == "mine\n"
    assert record(project, "catalog/papers/2025/lovelace2025rotatinga.yaml")["title"] == Work.title


@pytest.mark.parametrize(
    "id, message", [("yadav2023ties", "is another paper"), ("Nonsense", "is not an id"), ("../../x2024y", "is not an id")]
)
def test_a_bad_id_of_the_readers_choice_is_refused(apis, project, capsys, id, message):
    before = sorted(project.rglob("*.yaml"))
    assert new("2405.01234", "--id", id) == 1
    assert message in capsys.readouterr().err and sorted(project.rglob("*.yaml")) == before


@pytest.mark.parametrize(
    "id, wanted",
    [
        ("hep-th/9901001v2", Wanted("arxiv", "hep-th/9901001")),
        ("https://huggingface.co/papers/2405.01234", Wanted("arxiv", "2405.01234")),
        ("doi:10.1000/182", Wanted("doi", "10.1000/182")),
        ("https://openreview.net/pdf?id=aB3dEf6hIj", Wanted("openreview", "aB3dEf6hIj")),
        ("P19-1001", Wanted("acl", "P19-1001")),
        ("2024.findings-emnlp.99", Wanted("acl", "2024.findings-emnlp.99")),
        ("Model soups averaging", Wanted("title", "Model soups averaging")),
        ("ties", None),
        ("yadav-2023", None),
        ("2405.99", None),
        ("https://example.org/a/b/c/d", None),
    ],
)
def test_ids_are_understood(id, wanted):
    assert understood(id) == wanted


def test_a_link_to_elsewhere_is_refused(apis, capsys):
    assert new("https://example.org/paper.html") == 1
    assert "no link to arXiv, OpenReview, the ACL Anthology or a DOI" in capsys.readouterr().err and not apis.asked


BIBTEX = """@inproceedings{lovelace2025rotating,
  title={{Rotating Task Vectors}: Merging Without Interference},
  author={Lovelace, Ada and M{\\"u}ller-Gro{\\ss}, J{\\"u}rgen and Wei Li},
  booktitle={The Thirteenth International Conference on Learning Representations},
  year={2025},
  url={https://openreview.net/forum?id=aB3dEf6hIj}
}
"""


def test_a_bibtex_entry_is_enough_without_a_network(project, capsys, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("no network"))
    (project / "one.bib").write_text(BIBTEX)
    assert new("--bibtex", "one.bib") == 0
    assert (project / PATH).is_file()
    found = record(project)
    assert (found["title"], found["authors"]) == (Work.title, list(Work.authors))
    assert (found["year"], found["venue"], found["openreview"]) == (2025, "iclr", "aB3dEf6hIj")


@pytest.mark.parametrize("text, count", [("", 0), (BIBTEX + BIBTEX.replace("lovelace2025", "other2025"), 2)])
def test_a_file_of_not_one_entry_is_refused(project, capsys, text, count):
    (project / "list.bib").write_text(text)
    assert new("--bibtex", "list.bib") == 1
    assert f"{count} entries with a title, not one; `python -m tools import` reads a list" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["li2026merging", "--bibtex", "x.bib"],
        ["li2026merging", "--prefer", "DBLP"],
        ["--bibtex", "x.bib", "--prefer", "DBLP"],
    ],
)
def test_one_thing_at_a_time(project, capsys, arguments):
    assert new(*arguments) == 1
    assert capsys.readouterr().err.count("\n") == 1


# --- topics -----------------------------------------------------------------------------------------------------


def test_topics_are_those_of_the_nearest_records():
    """Each tenth paper of the catalog is taken out and looked at as a new one: one of three topics is right for most."""
    catalog = whole_catalog()
    some = sorted(catalog.papers)[::10]
    hits = 0
    for id in some:
        paper = catalog.papers[id]
        nodes, near = topics(catalog, paper.title, paper.summary, leave_out=id)
        assert len(nodes) <= 3 and id not in near
        hits += bool(set(nodes) & set(paper.taxonomy))
    always = Counter(node for paper in catalog.papers.values() for node in paper.taxonomy).most_common(3)
    guess = sum(bool({node for node, _ in always} & set(catalog.papers[id].taxonomy)) for id in some)
    assert hits > 0.6 * len(some) and hits > 2 * guess


# --- any answer at all ------------------------------------------------------------------------------------------

KEYS = st.sampled_from(
    "message title author given family DOI container-title issued date-parts authorships locations source results data venue "
    "year ee notes content value id result hits hit info authors text externalIds ArXiv updated-by type relation".split()
)
VALUES = st.sampled_from(["2405.01234", "ICLR", "2024"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=25,
)


class Says:
    """A web on which every address gives one answer."""

    def __init__(self, answer):
        self.answer, self.say = answer, lambda line: None

    def json(self, *args, **named):
        return self.answer

    def text(self, *args, **named):
        return self.answer if isinstance(self.answer, str) else json.dumps(self.answer)


@settings(max_examples=200, deadline=None)
@given(JSON)
def test_no_answer_is_taken_for_more_than_it_is(answer):
    web = Says(answer)
    papers = [
        crossref.by_doi(web, "10.1/x"),
        *crossref.by_dois(web, ["10.1/x"]).values(),
        *crossref.by_title(web, "a b c"),
        openalex.by_doi(web, "10.1/x"),
        *openalex.by_title(web, "a b c"),
        semantic_scholar.by_id(web, "ARXIV:1"),
        *semantic_scholar.by_ids(web, ["ARXIV:1"]).values(),
        *semantic_scholar.by_title(web, "a b c"),
        *dblp.by_title(web, "a b c"),
        openreview.by_id(web, "x"),
    ]
    for paper in papers:
        assert paper is None or (
            isinstance(paper, Found) and paper.title and all(isinstance(name, str) and name for name in paper.authors)
        )
        assert paper is None or paper.year is None or 1950 <= paper.year <= 2100


FOUND = st.builds(
    Found,
    st.sampled_from([source.NAME for source in SOURCES]),
    st.sampled_from(
        ["Rotating Task Vectors Now", "Spinning: Rotating Task Vectors Now", "a: [b] # 'c'", "Rotating Task Vector Now"]
    ),
    st.lists(st.sampled_from(["Ada Lovelace", "A. Lovelace", "Wei Li", "- x", "李 伟"]), max_size=3).map(tuple),
    year=st.none() | st.integers(2023, 2026),
    venue=st.sampled_from(["", "arXiv", "CoRR", "ICLR", "NeurIPS", "EMNLP", "ICLR 2024 Workshop", "Journal: of # Things"]),
    where=st.sampled_from(["", "1-12", "26(3):1-12", "9-10"]),
    arxiv=st.sampled_from([None, "2405.01234", "2405.01235"]),
    doi=st.sampled_from([None, "10.1000/a", "10.1000/b"]),
    openreview=st.sampled_from([None, "aB3dEf6hIj"]),
    code=st.sampled_from([(), ("https://github.com/a/b",)]),
    comment=st.sampled_from(["", "x: y"]),
    gone=st.sampled_from(["", "withdrawn: x"]),
    merged=st.booleans(),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(FOUND, min_size=1, max_size=5), st.none() | st.sampled_from(["DBLP", "arXiv"]))
def test_no_dispute_is_decided_in_silence(papers, prefer):
    agreement = Agreement(papers, TOY_CATALOG, prefer)
    text = fmt.canonical("papers", agreement.record)
    assert parse(Path("x.yaml"), text)[0].value == agreement.record
    for field in agreement.undecided:
        value = agreement.record[field]
        value = value[0] if isinstance(value, list) else value
        assert value.startswith("TODO: ") and any(line.startswith(f"{field}: ") for line in agreement.said)
    for field in ("arxiv", "doi"):
        said = {getattr(paper, field) for paper in papers} - {None}
        if len(said) > 1:
            assert field in agreement.undecided or any(line.startswith(f"{field}: ") for line in agreement.said)
        elif said:
            assert agreement.record[field] in said


@settings(max_examples=100, deadline=None)
@given(
    st.text(max_size=200)
    | st.text(max_size=50).map(lambda t: f'<feed xmlns="http://www.w3.org/2005/Atom"><entry><title>{t}</title></entry></feed>')
)
def test_any_feed_is_read_or_refused(answer):
    try:
        assert arxiv.by_ids(Says(answer), ["2405.01234"]) == {}
    except Unavailable as error:
        assert str(error) in ("the answer is no feed", "the answer defines entities and is not read")


def test_long_texts_cost_little():
    start = time.process_time()
    for piece in ("<a ", "<a b=c ", "<", "&", "https://github.com/a/b", ".", ")", "{", " ", "<a" + " " * 99):
        found.text(piece * (20_000 // len(piece)) + "x", 20_000)
        found.repositories(f"https://github.com/a/b{piece * (20_000 // len(piece))}x")
        list(in_text(f"https://a.org/{piece * (20_000 // len(piece))}x"))
    assert time.process_time() - start < 2


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=400))
def test_text_of_strangers_is_one_printable_line(value):
    line = found.text(value)
    assert (line.isprintable() and line == line.strip() and "  " not in line) and len(line) <= 300
