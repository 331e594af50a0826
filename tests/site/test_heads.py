"""What other programs read from a page, and the files that the site offers: whatever a record holds stays a value."""

import csv
import io
import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import jinja2
import pytest
import yaml

from tests.site.building import ROOT, Elements
from tests.site.hostile import PAYLOADS
from tests.site.hostile import catalog as hostile_catalog
from tools import csp
from tools.catalog import load
from tools.export import export
from tools.pages import Pages

TOY = ROOT / "tests" / "toy_catalog"


class Data(HTMLParser):
    """The content of the JSON-LD elements, as a browser delimits it."""

    def __init__(self, page: str):
        super().__init__()
        self.found: list[str] = []
        self.inside = False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.inside = tag == "script" and ("type", "application/ld+json") in attributes

    def handle_data(self, data):
        if self.inside:
            self.found.append(data)

    def handle_endtag(self, tag):
        self.inside = False


def printed(page: str) -> str:
    """The head of a page of the site as the theme prints it, without the theme around it."""
    meta = yaml.safe_load(page.split("---\n")[1])
    source = (ROOT / "overrides" / "main.html").read_text(encoding="utf-8")
    base = "".join(f"{{% block {name} %}}{{% endblock %}}" for name in ("htmltitle", "styles", "extrahead", "scripts"))
    environment = jinja2.Environment(loader=jinja2.DictLoader({"base.html": base, "main.html": source}))
    environment.filters["url"] = lambda path: path
    shown = {"title": "x", "is_homepage": False, "meta": {**meta, "math": False}}
    return environment.get_template("main.html").render(page=shown, config={"site_name": "x"})


def metas(html: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for tag, attributes in Elements(html).tags:
        if tag == "meta":
            found.setdefault(attributes.get("name") or attributes.get("property"), []).append(attributes["content"])
    return found


@pytest.fixture(scope="module")
def real():
    catalog = load(ROOT)
    return catalog, dict(Pages(catalog).all())


def test_a_paper_says_who_wrote_it_and_where(real):
    catalog, pages = real
    for id, paper in catalog.papers.items():
        html = printed(pages[f"catalog/papers/{id}.md"])
        found = metas(html)
        assert found["citation_title"] == found["og:title"] == [paper.title] and found["citation_author"] == paper.authors
        assert found["citation_publication_date"] == [str(paper.year)] and "citation_pdf_url" not in found
        assert found.get("citation_doi", [None]) == [paper.doi] and found.get("citation_arxiv_id", [None]) == [paper.arxiv]
        assert found["og:description"] == [paper.summary] and found["og:type"] == ["article"]
        (data,) = map(json.loads, Data(html).found)
        assert (data["@type"], data["name"], data["datePublished"]) == ("ScholarlyArticle", paper.title, str(paper.year))
        assert [author["name"] for author in data["author"]] == paper.authors
        assert paper.doi is None or f"https://doi.org/{paper.doi}" in data["sameAs"]


def test_a_method_says_what_it_is_and_which_paper_it_follows(real):
    catalog, pages = real
    for id, method in catalog.methods.items():
        html = printed(pages[f"catalog/methods/{id}.md"])
        found = metas(html)
        assert found["og:title"] == [method.name] and found["og:description"] == [method.summary]
        paper = catalog.papers.get(method.introduced_by or "")
        assert found.get("citation_title", [None]) == [paper.title if paper else None]
        data = [json.loads(text) for text in Data(html).found]
        if catalog.implementation(id):
            assert data[0]["@type"] == "SoftwareSourceCode" and data[0]["name"] == method.name
            assert paper is None or data[0]["citation"]["name"] == paper.title
        else:
            assert [part["@type"] for part in data] == (["ScholarlyArticle"] if paper else [])


def test_hostile_texts_stay_values_in_the_head(tmp_path):
    pages = dict(Pages(hostile_catalog(tmp_path)).all())
    for number in range(len(PAYLOADS)):
        for path in (f"catalog/papers/hostile2024p{number}.md", f"catalog/methods/hostile_{number}.md"):
            html = printed(pages[path])
            tags = [tag for tag, _ in Elements(html).tags]
            assert set(tags) <= {"title", "meta", "script"} and tags.count("script") == 1, path
            (text,) = Data(html).found
            assert not set("<>&") & set(text) and PAYLOADS[number] in json.loads(text)["name"]
            assert metas(html)["og:title"] == [PAYLOADS[number]] and metas(html)["citation_title"] == [PAYLOADS[number]]


def test_the_policy_takes_the_data_for_no_script(real):
    html = '<meta charset="utf-8">' + printed(real[1]["catalog/methods/ties_merging.md"])
    assert csp.INLINE.findall(html) == [] and "sha256" not in csp.seal(html)


# --- downloads ---


def test_the_site_offers_what_the_command_writes(real):
    catalog, pages = real
    for format, path in {
        "bibtex": "papers.bib",
        "csl-json": "papers.csl.json",
        "ris": "papers.ris",
        "csv": "papers.csv",
        "json": "catalog.json",
        "json-schema": "catalog.schema.json",
        "llms": "../../llms.txt",
    }.items():
        place = "llms.txt" if format == "llms" else f"catalog/downloads/{path}"
        assert pages[place] == export(catalog, format)
        assert f"{place})" in pages["catalog/downloads/index.md"]
    assert len(list(csv.reader(io.StringIO(pages["catalog/downloads/papers.csv"])))) == len(catalog.papers) + 1
    assert "](../downloads/index.md)" in pages["catalog/papers/index.md"]


def test_the_feed_of_the_site_holds_the_newest(real):
    catalog, pages = real
    texts = (pages["papers.atom"], export(catalog, "atom"))
    dates, whole = ([part.text for part in ElementTree.fromstring(text).iter() if "updated" in part.tag] for text in texts)
    assert dates == whole[: len(dates)] and len(dates) == 1 + min(100, len(catalog.papers))


def test_a_reading_list_links_its_own_bibtex(real):
    catalog, pages = real
    for id in catalog.reading_lists:
        assert f"(../../catalog/downloads/lists/{id}.bib)" in pages[f"catalog/reading_lists/{id}.md"]
        keys = re.findall(r"(?m)^@\w+\{(\w+),", pages[f"catalog/downloads/lists/{id}.bib"])
        assert set(keys) == {paper for paper, lists in catalog.reading_lists_by_paper.items() if id in lists}
