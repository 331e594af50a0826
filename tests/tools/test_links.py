"""`python -m tools links`: every kind of answer is told apart, nothing private is asked, and a report can do no harm."""

import re
from pathlib import Path

import pytest
import yaml

from tests.tools.apis import ARXIV, Work, feed, in_turn, text
from tests.tools.toy import replace, write
from tools.__main__ import main
from tools.catalog import load
from tools.links import Outcome, code, collect, in_text, report
from tools.lookup import guard
from tools.lookup.guard import Unavailable


@pytest.fixture
def offline(monkeypatch):
    """No name is resolved but this machine's own: only the server of the test can be asked."""
    resolve = guard._resolve

    def numbers(host, port):
        if host != "localhost" and not re.fullmatch(r"[\d.]+", host):
            raise Unavailable(f"{host} is not a known host")
        resolve(host, port)

    monkeypatch.setattr(guard, "_resolve", numbers)
    monkeypatch.setattr("tools.links.GAP", 0.0)
    monkeypatch.setattr("tools.links.OWN", re.compile("$x"))  # this machine is no example here


def answers() -> dict:
    return {
        "well": lambda *_: text("hello"),
        "gone": lambda *_: text("", 404),
        "long-gone": lambda *_: text("", 410),
        "login": lambda *_: text("", 403),
        "busy": lambda *_: text("", 429, Retry_After="900"),
        "ill": lambda *_: text("", 500),
        "moved": lambda *_: text("", 301, Location="/well"),
        "moved-twice": lambda *_: text("", 308, Location="/moved"),
        "for-now": lambda *_: text("", 302, Location="/well"),
        "moved-then-for-now": lambda *_: text("", 301, Location="/for-now"),
        "moved-to-nothing": lambda *_: text("", 301, Location="/gone"),
        "slash": in_turn(text("", 301, Location="/slash/"), text("hello")),
        "no-head": in_turn(text("", 405), text("hello")),
        "circle": lambda *_: text("", 301, Location="/circle"),
        "house": lambda *_: text("", 302, Location="http://10.0.0.1/admin"),
    }


EXPECTED = {
    "well": "well",
    "gone": "dead",
    "long-gone": "dead",
    "login": "blocked",
    "busy": "blocked",
    "ill": "unreachable",
    "moved": "moved",
    "moved-twice": "moved",
    "for-now": "redirected",
    "moved-then-for-now": "moved",
    "moved-to-nothing": "dead",
    "circle": "unreachable",
    "house": "refused",
    "slash": "well",
    "no-head": "well",
}


@pytest.fixture
def pages(apis, project, offline):
    """A page of the documentation that links everything that the server has."""
    apis.replies |= answers() | {ARXIV: lambda *_: feed([])}
    write(project, "docs/guide/links.md", "".join(f"- [{name}]({apis.base}/{name})\n" for name in EXPECTED))
    return apis


def look(pages, capsys) -> tuple[int, dict[str, str], str]:
    """(exit code, name -> heading below which it stands, the report)"""
    status = main(["links"])
    out = capsys.readouterr().out
    kinds, kind = {}, ""
    for line in out.splitlines():
        kind = line[3:].lower() if line.startswith("## ") else kind
        if match := re.match(rf"- `{pages.base}/([\w-]+)`", line):
            kinds[match[1]] = kind
    return status, kinds, out


def test_answers_are_told_apart(pages, capsys):
    status, kinds, out = look(pages, capsys)
    assert kinds == {name: kind for name, kind in EXPECTED.items() if kind != "well"} and status == 1
    assert f"`{pages.base}/moved-twice` redirects for good to `{pages.base}/well`: `docs/guide/links.md:8`" in out
    assert f"`{pages.base}/moved-then-for-now` redirects for good to `{pages.base}/for-now`" in out


def test_a_server_that_does_not_know_head_is_asked_with_get(pages, capsys):
    look(pages, capsys)
    assert [method for method, (host, _, _) in zip(pages.methods, pages.asked) if host == "no-head"] == ["HEAD", "GET"]
    assert {method for method, (host, _, _) in zip(pages.methods, pages.asked) if host == "slash"} == {"HEAD"}


def test_what_is_well_is_remembered_and_what_is_not_is_asked_again(pages, capsys):
    first = look(pages, capsys)
    before = len(pages.asked)
    assert look(pages, capsys)[1] == first[1]
    asked = {host for host, _, _ in pages.asked[before:]}
    assert {"gone", "login", "busy", "ill", "circle"} <= asked and not {"well", "moved", "for-now", "no-head"} & asked


def test_links_without_fault_end_well(apis, project, offline, capsys):
    for path in list(project.rglob("*.yaml")):
        if path.parent.name not in ("catalog",):
            path.unlink()
    assert main(["links"]) == 0
    assert capsys.readouterr().out == "# Links\n\nnone\n"


def test_without_a_network_the_exit_code_is_two(apis, project, offline, capsys):
    apis.replies[ARXIV] = lambda *_: text("oops", 500)
    assert main(["links"]) == 2
    assert "is there a network?" in capsys.readouterr().err


def test_preprints_are_asked_of_the_api_in_one_question(apis, project, offline, capsys):
    known = load(project).papers
    some = [Work(arxiv=paper.arxiv) for id, paper in known.items() if paper.arxiv and id != "yadav2023ties"]
    apis.works = some
    assert main(["links"]) == 1
    out = capsys.readouterr().out
    dead = out.partition("## Dead\n\n")[2].partition("\n\n")[0].splitlines()
    assert (
        len(dead) == 1
        and "`https://arxiv.org/abs/2306.01708` arXiv has no 2306.01708: `catalog/papers/2023/yadav2023ties.yaml:" in dead[0]
    )
    assert [host for host, _, _ in apis.asked] == [ARXIV]


@pytest.mark.parametrize(
    "url", ["http://localhost:1/x", "http://10.1.2.3/x", "http://169.254.169.254/latest", "http://192.168.0.1:8080/x"]
)
def test_private_addresses_in_a_record_are_not_asked(apis, project, capsys, offline, url):
    replace(project, "catalog/papers/2023/yadav2023ties.yaml", "https://github.com/prateeky2806/ties-merging", url)
    assert main(["links"]) == 1
    assert f"- `{url}` " in capsys.readouterr().out.partition("## Refused")[2]


# --- what is a link ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line, found",
    [
        ("See https://a.org/b.", ["https://a.org/b"]),
        ("[x](https://a.org/b_(c)) and (https://a.org/d).", ["https://a.org/b_(c)", "https://a.org/d"]),
        ("<https://a.org/?q=1&r=2#s>, **https://a.org/z**", ["https://a.org/?q=1&r=2#s", "https://a.org/z"]),
        ('`https://a.org` "https://a.org/\'" http:// https://.', ["https://a.org", "https://a.org/"]),
    ],
)
def test_links_are_found_in_text(line, found):
    assert list(in_text(line)) == found


def test_every_link_of_a_record_is_found_where_it_stands(project):
    links = collect(load("."))
    path = "catalog/papers/2023/yadav2023ties.yaml"
    lines = (project / path).read_text().splitlines()
    at = {line: f"{path}:{number}" for number, line in enumerate(lines, 1)}
    assert links["https://arxiv.org/abs/2306.01708"] == [at['arxiv: "2306.01708"']]
    assert links["https://openreview.net/forum?id=xtaX3WyCj1"] == [at["openreview: xtaX3WyCj1"]]
    assert "https://github.com/prateeky2806/ties-merging" in links
    for path in project.rglob("catalog/**/*.yaml"):
        for url in re.findall(r"^\s*(?:- )?url: (\S+)$", path.read_text(), re.MULTILINE):
            assert url in links


def test_an_example_is_no_link(project):
    write(
        project,
        "README.md",
        "http://127.0.0.1:8000 http://localhost/x https://example.org/a https://www.example.com https://real.org/b",
    )
    assert [url for url, places in collect(load(".")).items() if places == ["README.md:1"]] == ["https://real.org/b"]


def test_a_report_holds_no_markup_of_strangers():
    evil = "https://a.org/`<img src=x onerror=alert(1)>`@someone\n# heading\n\u202e"
    url = "https://b.org/"
    out = report({url: ["a.yaml:1"]}, {url: Outcome("moved", "redirects `@someone <b>", evil)})
    line = out.splitlines()[-1]
    assert line.count("`") == 6 and "\n# heading" not in out and "\u202e" not in out
    outside = re.sub(r"`[^`]*`", "", line)
    assert not re.search(r"[<>@#]", outside)
    assert code("a`b\nc") == "`a%60b%0Ac`"


def test_nothing_that_needs_a_network_runs_in_a_pull_request():
    for path in (Path(__file__).parents[2] / ".github/workflows").glob("*.yml"):
        text = path.read_text(encoding="utf-8")
        triggers = yaml.safe_load(text)[True]  # YAML reads the key `on` as true
        if any("pull_request" in str(trigger) for trigger in triggers):
            assert not re.search(r"tools (refresh|links|new)\b", text), path
