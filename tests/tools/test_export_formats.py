"""What each format says is read back by somebody else, and no record's text becomes more than text in it."""

import csv
import html
import io
import json
import re
import sqlite3
from xml.etree import ElementTree

import bibtexparser
import feedparser
import jsonschema
import pytest
import rispy
from bibtexparser.middlewares.names import parse_single_name_into_parts

from tests.site.hostile import PAYLOADS
from tests.site.hostile import catalog as hostile_catalog
from tests.tools.test_export import plain
from tests.tools.toy import TOY
from tools.__main__ import main
from tools.catalog import CatalogError, load
from tools.export import PAPERS, WHOLE, chosen, export
from tools.exporting.feed import updated
from tools.exporting.names import inverted, parts
from tools.exporting.table import COLUMNS

ATOM = "{http://www.w3.org/2005/Atom}"
ROOT = TOY.parents[1]


@pytest.fixture(scope="module", params=["toy", "real"])
def catalog(request):
    return load(TOY.parent, TOY.name) if request.param == "toy" else load(ROOT)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    return hostile_catalog(tmp_path_factory.mktemp("hostile"))


# --- names ---


@pytest.mark.parametrize(
    "name, family, sorted_by",
    [
        ("Ana Ý. Müller", {"family": "Müller", "given": "Ana Ý."}, "Müller, Ana Ý."),
        ("Ana de la Cruz", {"family": "Cruz", "given": "Ana", "non-dropping-particle": "de la"}, "de la Cruz, Ana"),
        ("Bo Li Jr.", {"family": "Li", "given": "Bo", "suffix": "Jr."}, "Li, Bo, Jr."),
        ("OpenAI", {"literal": "OpenAI"}, "OpenAI"),
        ("Salt and Pepper Group", {"literal": "Salt and Pepper Group"}, "Salt and Pepper Group"),
    ],
)
def test_a_name_is_split_as_reference_managers_want_it(name, family, sorted_by):
    assert parts(name) == family and inverted(name) == sorted_by


def test_names_are_split_where_bibtex_splits_them(catalog):
    for paper in catalog.papers.values():
        for name in paper.authors:
            found, theirs = parts(name), parse_single_name_into_parts(name)
            if "literal" not in found and "suffix" not in found:
                assert found["family"].split() == theirs.last, name
                assert found.get("given", "").split() == theirs.first, name
                assert found.get("non-dropping-particle", "").split() == theirs.von, name


# --- CSL-JSON ---

TEXT = {"type": "string"}
NUMBER = {"type": ["string", "number"]}
CSL = {  # the rules of the official schema (csl-data.json) for the fields that papers need; it refuses all others too
    "type": "array",
    "items": {
        "type": "object",
        "required": ["type", "id"],
        "additionalProperties": False,
        "properties": {
            "type": {"enum": ["article", "article-journal", "paper-conference"]},
            "id": NUMBER,
            "author": {
                "type": "array",
                "items": {
                    "additionalProperties": False,
                    "properties": dict.fromkeys(["family", "given", "non-dropping-particle", "suffix", "literal"], TEXT),
                },
            },
            "issued": {
                "additionalProperties": False,
                "properties": {
                    "date-parts": {
                        "type": "array",
                        "minItems": 1,
                        "maxItems": 2,
                        "items": {"type": "array", "minItems": 1, "maxItems": 3, "items": NUMBER},
                    }
                },
            },
            **dict.fromkeys(["title", "container-title", "container-title-short", "publisher"], TEXT),
            **dict.fromkeys(["archive", "archive_location", "DOI", "URL", "note"], TEXT),
            **dict.fromkeys(["volume", "issue", "page"], NUMBER),
        },
    },
}


def test_csl_json_follows_its_schema_and_says_what_the_bibtex_says(catalog):
    items = json.loads(export(catalog, "csl-json"))
    jsonschema.validate(items, CSL)
    library = bibtexparser.parse_string(export(catalog, "bibtex"))
    entries = {entry.key: {field.key: field.value for field in entry.fields} for entry in library.entries}
    assert not library.failed_blocks and [item["id"] for item in items] == list(entries) == sorted(catalog.papers)
    for item in items:
        entry = entries[item["id"]]
        assert item["title"] == plain(entry["title"]) and item.get("DOI") == entry.get("doi")
        assert len(item["author"]) == len(entry["author"].split(" and "))
        assert item["issued"] == {"date-parts": [[int(entry["year"])]]}
        assert item.get("container-title") == (plain(entry.get("booktitle") or entry.get("journal") or "") or None)
        assert item.get("page", "").replace("-", "--") == entry.get("pages", "") and item.get("volume") == entry.get("volume")


def test_hostile_texts_stay_in_their_csl_fields(hostile):
    items = json.loads(export(hostile, "csl-json"))
    jsonschema.validate(items, CSL)
    assert len(items) == len(PAYLOADS) and all(item["title"].isprintable() for item in items)


# --- RIS ---


def read_ris(text: str) -> list[list[tuple[str, str]]]:
    """Records of (tag, value), by the letter of the format: two characters, two spaces, hyphen, space."""
    records, current = [], None
    for line in text.splitlines():  # at every character that some reader takes for the end of a line
        if not line:
            assert current is None, "a blank line within a record"
            continue
        match = re.fullmatch(r"([A-Z][A-Z0-9])  - (.*)", line)
        assert match, line
        tag, value = match.groups()
        if tag == "TY":
            assert current is None, "TY before ER"
            current = []
        current.append((tag, value))
        if tag == "ER":
            assert value == ""
            records.append(current)
            current = None
    assert current is None
    return records


def test_ris_is_read_back(catalog):
    records = read_ris(export(catalog, "ris"))
    assert [dict(record)["ID"] for record in records] == sorted(catalog.papers)
    for record in records:
        facts = dict(record)
        paper = catalog.papers[facts["ID"]]
        venue = catalog.venues[paper.venue]
        assert [tag for tag, _ in record][0] == "TY" and [tag for tag, _ in record].count("TY") == 1
        assert facts["TY"] == {"journal": "JOUR", "preprint server": "UNPB"}.get(venue.kind, "CPAPER")
        assert facts["TI"] == paper.title and facts["PY"] == str(paper.year) and facts.get("DO") == paper.doi
        assert [value for tag, value in record if tag == "AU"] == [inverted(name) for name in paper.authors]
        assert (facts.get("AN") or "arXiv:").removeprefix("arXiv:") == (paper.arxiv or "") and facts["T2"] == venue.name


def test_a_reference_manager_s_parser_reads_the_same_from_ris(catalog):
    for record in rispy.loads(export(catalog, "ris")):
        paper = catalog.papers[record["id"]]
        assert record["title"] == paper.title and record["authors"] == [inverted(name) for name in paper.authors]
        assert record["year"] == str(paper.year) and record.get("doi") == paper.doi


def test_hostile_texts_make_no_ris_tag(hostile):
    records = read_ris(export(hostile, "ris"))
    assert len(records) == len(PAYLOADS)
    for record in records:
        assert [tag for tag, _ in record].count("TI") == 1 and record[-1] == ("ER", "")


# --- CSV ---


def test_csv_has_one_row_a_paper(catalog):
    rows = list(csv.DictReader(io.StringIO(export(catalog, "csv"))))
    assert [row["id"] for row in rows] == sorted(catalog.papers) and list(rows[0]) == COLUMNS
    for row in rows:
        paper = catalog.papers[row["id"]]
        assert row["title"].removeprefix("'") == paper.title and row["authors"].split("; ") == paper.authors
        assert (row["year"], row["arxiv"] or None, row["doi"] or None) == (str(paper.year), paper.arxiv, paper.doi)
        assert row["code"].split("; ") == [code.url for code in paper.code] or not (row["code"] or paper.code)


FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", '=HYPERLINK("https://e.example","x")', "＝1", "-2+3+cmd|' /C calc'!A0"]


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_runs_as_a_formula(text):
    catalog = load(TOY.parent, TOY.name)
    paper = catalog.papers["yadav2023ties"]
    changed = paper.model_copy(update={"title": text, "summary": text, "authors": [text, "Bo Li", text], "note": f"x;{text}"})
    changed._id = paper.id
    catalog.papers[paper.id] = changed
    (row,) = [row for row in csv.DictReader(io.StringIO(export(catalog, "csv"))) if row["id"] == paper.id]
    assert row["title"] == row["summary"] == f"'{text}" and row["authors"] == f"'{text}; Bo Li; '{text}"
    assert row["note"] == f"x;'{text}"  # a spreadsheet whose comma is decimal parts cells at semicolons


def test_no_hostile_cell_begins_a_formula_or_a_row(hostile):
    rows = list(csv.reader(io.StringIO(export(hostile, "csv"))))
    assert len(rows) == len(PAYLOADS) + 1 and {len(row) for row in rows} == {len(COLUMNS)}
    parts = [part.strip(' "') for row in rows for cell in row for part in cell.split(";")]
    assert not any(part.startswith(tuple("=+-@＝＋－＠")) for part in parts)


# --- JSON Schema ---


def test_the_whole_document_follows_its_schema(catalog):
    schema = json.loads(export(catalog, "json-schema"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(export(catalog, "json")), schema, cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    "break_it",
    [
        lambda d: d["papers"][0].pop("doi"),
        lambda d: d["papers"][0].update(extra=1),
        lambda d: d["papers"][0].update(id="Not An Id"),
        lambda d: d["papers"][0].update(kind="poem"),
        lambda d: d["methods"][0].update(chapter="nowhere"),
        lambda d: d["methods"][0].update(implementation="os:system"),
        lambda d: d["methods"][0]["requirements"].pop("base"),
        lambda d: d.pop("venues"),
        lambda d: d.update(extra=[]),
    ],
)
def test_the_schema_refuses_what_no_export_writes(break_it):
    catalog = load(TOY.parent, TOY.name)
    document = json.loads(export(catalog, "json"))
    break_it(document)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, json.loads(export(catalog, "json-schema")), cls=jsonschema.Draft202012Validator)


# --- SQLite ---


def opened(data: bytes) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    connection.deserialize(data)
    return connection


def test_the_database_is_whole_and_holds_every_record(catalog):
    database = opened(export(catalog, "sqlite"))

    def ask(query, *values):
        return database.execute(query, values).fetchall()

    assert ask("PRAGMA integrity_check") == [("ok",)] and ask("PRAGMA foreign_key_check") == []
    for kind in ("papers", "methods", "taxonomy", "venues", "codebases", "resources", "reading_lists"):
        assert [id for (id,) in ask(f"SELECT id FROM {kind} ORDER BY id")] == sorted(getattr(catalog, kind))
    for id, paper in catalog.papers.items():
        assert [name for (name,) in ask("SELECT name FROM authors WHERE paper = ? ORDER BY position", id)] == paper.authors
        topics = ask("SELECT topic FROM links WHERE paper = ? AND relation = 'in topic'", id)
        assert {node for (node,) in topics} == set(paper.taxonomy)
        found = ask("SELECT method FROM links WHERE paper = ? AND relation IN ('introduced by', 'discussed by')", id)
        assert {method for (method,) in found} == set(catalog.methods_by_paper.get(id, []))
    related = {(id, link.method, link.how) for id, method in catalog.methods.items() for link in method.related}
    assert set(ask("SELECT method, related, relation FROM links WHERE related IS NOT NULL")) == related
    listed = {(id, name) for id, lists in catalog.reading_lists_by_paper.items() for name in lists}
    assert set(ask("SELECT paper, list FROM links WHERE relation = 'listed in' AND paper IS NOT NULL")) == listed


def test_hostile_texts_are_values_in_the_database(hostile):
    titles = {title for (title,) in opened(export(hostile, "sqlite")).execute("SELECT title FROM papers")}
    assert titles == {paper.title for paper in hostile.papers.values()}


def test_a_record_that_names_nothing_stops_the_database():
    catalog = load(TOY.parent, TOY.name)
    del catalog.venues[catalog.papers["yadav2023ties"].venue]
    with pytest.raises(CatalogError, match="names a record that is not there; `python -m tools check` says which"):
        export(catalog, "sqlite")


def test_a_database_needs_a_file(project, capsys):
    assert main(["export", "--format", "sqlite"]) == 1 and "name one with -o" in capsys.readouterr().err
    assert main(["export", "--format", "sqlite", "-o", "atlas.sqlite"]) == 0
    assert (project / "atlas.sqlite").read_bytes().startswith(b"SQLite format 3\0")


# --- Atom ---


def test_the_feed_is_newest_first_and_claims_no_day(catalog):
    feed = ElementTree.fromstring(export(catalog, "atom"))
    entries = feed.findall(f"{ATOM}entry")
    dates = [entry.findtext(f"{ATOM}updated") for entry in entries]
    assert dates == sorted(dates, reverse=True) and feed.findtext(f"{ATOM}updated") == dates[0]
    assert all(re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])-01T00:00:00Z", date) for date in dates)
    assert "arXiv id, or by their year" in feed.findtext(f"{ATOM}subtitle")
    by_title = {paper.title: paper for paper in catalog.papers.values()}
    assert len({entry.findtext(f"{ATOM}id") for entry in entries}) == len(entries) == len(catalog.papers)
    for entry in entries:
        paper = by_title[entry.findtext(f"{ATOM}title")]
        assert [name.text for name in entry.iterfind(f"{ATOM}author/{ATOM}name")] == paper.authors
        assert entry.findtext(f"{ATOM}content") == paper.summary and entry.findtext(f"{ATOM}updated") == updated(paper)
        assert [link.get("rel") for link in entry.iterfind(f"{ATOM}link")].count("alternate") == 1


def test_a_feed_reader_finds_every_paper(catalog):
    feed = feedparser.parse(export(catalog, "atom"))
    assert not feed.bozo and feed.version == "atom10" and len(feed.entries) == len(catalog.papers)
    by_title = {paper.title: paper for paper in catalog.papers.values()}
    for entry in feed.entries:
        assert [author.name for author in entry.authors] == by_title[html.unescape(entry.title)].authors
        assert entry.updated_parsed and entry.link.startswith("http")


@pytest.mark.parametrize(
    "arxiv, year, date",
    [
        ("2306.01708", 2024, "2023-06-01"),
        ("cs/0301001", 2004, "2003-01-01"),
        ("cs/9912001", 2000, "1999-12-01"),
        ("2313.01708", 2024, "2024-01-01"),
        (None, 2018, "2018-01-01"),
    ],
)
def test_a_date_comes_from_the_arxiv_id_or_the_year(arxiv, year, date):
    paper = load(TOY.parent, TOY.name).papers["yadav2023ties"].model_copy(update={"arxiv": arxiv, "year": year})
    assert updated(paper) == f"{date}T00:00:00Z"


def test_hostile_texts_are_text_in_the_feed(hostile):
    feed = ElementTree.fromstring(export(hostile, "atom"))
    known = {"feed", "title", "subtitle", "id", "updated", "rights", "entry", "author", "name", "link", "category", "content"}
    assert {element.tag for element in feed.iter()} == {ATOM + tag for tag in known}
    hosts = r"https://(arxiv|doi|openreview|example)\.(org|net)/"
    assert all(re.match(hosts, link.get("href")) for link in feed.iter(f"{ATOM}link"))
    assert {title.get("type") for title in feed.iterfind(f"{ATOM}entry/{ATOM}title")} == {"text"}


# --- Markdown ---


def test_llms_txt_has_its_shape(catalog):
    lines = export(catalog, "llms").split("\n")
    assert lines[0].startswith("# ") and lines[2].startswith("> ") and sum(line.startswith("# ") for line in lines) == 1
    sections = [line for line in lines if line.startswith("#")][1:]
    assert all(re.match("## [A-Z]", section) for section in sections) and sections[-1] == "## Optional"
    listed = lines[lines.index("## Start") :]
    assert all(re.fullmatch(r"- \[.+\]\([a-z0-9_/-]+/\): .+", line) for line in listed if line and not line.startswith("##"))
    for kind in ("papers", "methods", "codebases", "reading_lists", "taxonomy"):
        for id in getattr(catalog, kind):
            assert sum(f"](catalog/{kind}/{id}/): " in line for line in listed) == 1


def test_the_list_in_markdown_imports_as_the_same_records(catalog, tmp_path):
    importing = pytest.importorskip("tools.importing")
    (tmp_path / "list.md").write_text(export(catalog, "markdown"), encoding="utf-8")
    document, _ = importing.read(tmp_path / "list.md", catalog)
    assert sorted(item.title for item in document.items) == sorted(paper.title for paper in catalog.papers.values())
    papers = {paper.title: paper for paper in catalog.papers.values()}
    for item in document.items:
        paper = papers[item.title]
        assert item.arxiv == paper.arxiv and {link.url for link in item.code} == {code.url for code in paper.code}
        assert item.pub == f"{catalog.venues[paper.venue].short} {paper.year}"
        assert document.headings[item.heading].text == catalog.taxonomy[paper.taxonomy[0]].name
    kinds = {finding.kind for finding in document.findings}
    assert not kinds & {"new", "twice", "disagree", "title", "venue", "missing", "label", "heading", "markdown"}
    assert sum(finding.kind == "known" for finding in document.findings) == len(catalog.papers)


@pytest.mark.parametrize("format", ["markdown", "llms"])
def test_hostile_texts_make_no_markup_in_markdown(hostile, format):
    markdown = pytest.importorskip("markdown")
    from tests.site.building import Elements

    tags = Elements(markdown.markdown(export(hostile, format), extensions=["tables", "fenced_code"])).tags
    assert {tag for tag, _ in tags} <= {"h1", "h2", "h3", "blockquote", "p", "ul", "li", "a", "em"}
    for tag, attributes in tags:
        assert set(attributes) <= ({"href"} if tag == "a" else set())
        assert re.match(r"https://github\.com/|https?://|catalog/|guide/", attributes.get("href", "catalog/"))


# --- one reading list ---


@pytest.mark.parametrize("format", PAPERS)
def test_a_list_restricts_the_formats_of_papers(catalog, format):
    one = {"bibtex": "(?m)^@", "csl-json": '(?m)^  "id":', "ris": "(?m)^TY", "csv": "\n", "atom": "<entry>", "markdown": "(?m)^- "}
    for id, reading_list in catalog.reading_lists.items():
        text = export(catalog, format, id)
        inside = {entry.paper for section in reading_list.sections for entry in section.entries if entry.paper}
        assert [paper.id for paper in chosen(catalog, id)] == list(dict.fromkeys(p.id for p in chosen(catalog, id)))
        assert {paper.id for paper in chosen(catalog, id)} == inside
        assert len(re.findall(one[format], text)) == len(inside) + (format == "csv")


@pytest.mark.parametrize("format", WHOLE)
def test_a_list_is_refused_where_everything_is_written(format, capsys):
    assert main(["export", "--format", format, "--list", "first-steps", "-o", "x", "--catalog", str(TOY)]) == 1
    assert "--list chooses papers" in capsys.readouterr().err


def test_an_unknown_list_is_named_with_the_nearest(capsys):
    assert main(["export", "--format", "ris", "--list", "first-step", "--catalog", str(TOY)]) == 1
    assert capsys.readouterr().err == "no reading list 'first-step'; did you mean 'first-steps'?\n"


@pytest.mark.parametrize("format", [*PAPERS, *WHOLE])
def test_an_export_is_the_same_each_time(format):
    assert export(load(TOY.parent, TOY.name), format) == export(load(TOY.parent, TOY.name), format)
