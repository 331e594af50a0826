"""The exports say what the records say, and no title can break out of its field."""

import json
import re

import bibtexparser
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tools.toy import TOY, replace
from tools.__main__ import main
from tools.bibtex import ACTIVE, bibliography, bibtex_entry
from tools.catalog import load
from tools.records import Paper, Venue

VENUES = {
    "conference": Venue(name="Conference on A & B", kind="conference", short="AB"),
    "workshop": Venue(name="Workshop on C", kind="workshop", short="WC"),
    "journal": Venue(name="Journal of D", kind="journal", short="JD"),
    "preprint server": Venue(name="arXiv", kind="preprint server", short="arXiv"),
}


def paper(**changes) -> Paper:
    facts = {"title": "On Merging", "authors": ["Ana Ý. Müller"], "year": 2023, "venue": "ab", "kind": "method"}
    made = Paper(**facts | {"arxiv": "2301.00001", "taxonomy": ["merging"], "summary": "Merges."} | changes)
    made._id = "muller2023merging"
    return made


def parsed(text: str) -> dict[str, str]:
    library = bibtexparser.parse_string(text)
    assert not library.failed_blocks and len(library.entries) == 1 and len(library.blocks) == 1
    entry = library.entries[0]
    return {"type": entry.entry_type, "key": entry.key} | {field.key: field.value for field in entry.fields}


def plain(value: str) -> str:
    """The text that LaTeX would set."""
    commands = {command: character for character, command in ACTIVE.items()}
    pattern = "|".join(re.escape(command) for command in sorted(commands, key=len, reverse=True))
    inner = value[1:-1] if re.fullmatch(r"\{[\s\S]*\}", value) and value not in commands else value
    return re.sub(pattern, lambda match: commands[match[0]], inner)


# --- BibTeX ---


def test_an_entry_by_example():
    made = paper(title="TIES: 50% & more", where="26(307):1-38", doi="10.1000/a_b", authors=["Ana Müller", "Bo de la Cruz"])
    assert bibtex_entry(made, VENUES["journal"]) == (
        "@article{muller2023merging,\n"
        "  author = {Ana Müller and Bo de la Cruz},\n"
        "  title = {{TIES: 50\\% \\& more}},\n"
        "  year = {2023},\n"
        "  journal = {{Journal of D}},\n"
        "  volume = {26},\n"
        "  number = {307},\n"
        "  pages = {1--38},\n"
        "  doi = {10.1000/a_b},\n"
        "  eprint = {2301.00001},\n"
        "  archiveprefix = {arXiv},\n"
        "}\n"
    )


@pytest.mark.parametrize(
    "where, fields",
    [
        ("26(307):1-38", {"volume": "26", "number": "307", "pages": "1--38"}),
        ("2(2):026119", {"volume": "2", "number": "2", "pages": "026119"}),
        ("202", {"volume": "202"}),
        ("48(2)", {"volume": "48", "number": "2"}),
        ("pages 535-541", {"pages": "535--541"}),
        ("7066-7085", {"pages": "7066--7085"}),
        ("pages", {"note": "pages"}),
        ("48:", {"note": "48:"}),
        ("Datasets and Benchmarks Track", {"note": "Datasets and Benchmarks Track"}),
    ],
)
def test_the_place_gives_volume_number_and_pages_or_a_note(where, fields):
    found = parsed(bibtex_entry(paper(where=where), VENUES["journal"]))
    assert {key: value for key, value in found.items() if key in {"volume", "number", "pages", "note"}} == fields


@pytest.mark.parametrize(
    "kind, type_, field",
    [
        ("conference", "inproceedings", "booktitle"),
        ("workshop", "inproceedings", "booktitle"),
        ("journal", "article", "journal"),
        ("preprint server", "misc", None),
    ],
)
def test_the_type_comes_from_the_kind_of_venue(kind, type_, field):
    fields = parsed(bibtex_entry(paper(), VENUES[kind]))
    assert fields["type"] == type_
    assert {"booktitle", "journal"} & set(fields) == ({field} if field else set())
    assert field is None or plain(fields[field]) == VENUES[kind].name


def test_every_toy_paper_comes_back_with_its_fields():
    catalog = load(TOY.parent, TOY.name)
    library = bibtexparser.parse_string(bibliography((p, catalog.venues[p.venue]) for p in catalog.papers.values()))
    assert not library.failed_blocks and {entry.key for entry in library.entries} == set(catalog.papers)
    for entry in library.entries:
        fields, made = {field.key: field.value for field in entry.fields}, catalog.papers[entry.key]
        assert plain(fields["title"]) == made.title
        assert fields["author"].split(" and ") == made.authors
        assert fields["year"] == str(made.year) and fields["eprint"] == made.arxiv
        assert plain(fields["booktitle"]) == catalog.venues[made.venue].name


HOSTILE = [
    "x}, url={https://evil.example",
    "x}} @article{evil, title={y",
    "back\\slash\\",
    "\\}, url = {u",
    "{unbalanced",
    "unbalanced}",
    'quote " and "',
    "100% & #1 _a_ $x^2$ ~b~",
    "@article{evil,",
    "a = {b}, c = {d}",
    "\\input{/etc/passwd}",
    "{already braced}",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_stays_in_its_field(text):
    calm = parsed(bibtex_entry(paper(where="Sec. 1"), VENUES["conference"]))
    venue = Venue(name=text, kind="conference", short="X")
    fields = parsed(bibtex_entry(paper(title=text, authors=[text, "Bo Li"], where=text), venue))
    assert fields.keys() == calm.keys()
    assert plain(fields["title"]) == plain(fields["booktitle"]) == text
    assert plain("{" + fields["note"] + "}") == text


@settings(max_examples=300, deadline=None)
@given(st.text('ab {}\\",=@%&$#_~^()\'é', min_size=1, max_size=25).map(lambda text: " ".join(text.split())).filter(bool))
def test_any_text_comes_back_and_its_braces_balance(text):
    entry = bibtex_entry(paper(title=text), VENUES["journal"])
    assert plain(parsed(entry)["title"]) == text
    depth = 0
    for character in entry:  # as BibTeX counts: a backslash does not hide a brace
        depth += (character == "{") - (character == "}")
        assert depth >= 0
    assert depth == 0


def test_an_author_whom_bibtex_would_cut_is_kept_whole():
    fields = parsed(bibtex_entry(paper(authors=["Salt and Pepper Group", "Li, Bo", "Ana Sanders"]), VENUES["journal"]))
    assert fields["author"] == "{Salt and Pepper Group} and {Li, Bo} and Ana Sanders"


@pytest.mark.parametrize(
    "changes, link",
    [
        ({}, "https://arxiv.org/abs/2301.00001"),
        ({"openreview": "xtaX3WyCj1"}, "https://openreview.net/forum?id=xtaX3WyCj1"),
        ({"openreview": "xtaX3WyCj1", "url": "https://a.b/c"}, "https://a.b/c"),
        ({"arxiv": None, "doi": "10.1000/x"}, None),
    ],
)
def test_the_link_is_the_most_telling_one(changes, link):
    assert parsed(bibtex_entry(paper(**changes), VENUES["journal"])).get("url") == link


def test_an_entry_without_a_known_venue_is_misc():
    assert parsed(bibtex_entry(paper(), None))["type"] == "misc"


# --- JSON and the command ---


def test_the_json_document_holds_every_record_with_every_field(project, capsys):
    assert main(["export", "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    catalog = load(".")
    assert list(document) == ["papers", "methods", "codebases", "resources", "reading_lists", "taxonomy", "venues", "people", "redirects"]
    for kind, rows in document.items():
        assert [row["id"] for row in rows] == sorted(getattr(catalog, kind))
    ties = next(row for row in document["papers"] if row["id"] == "yadav2023ties")
    assert ties["title"] == catalog.papers["yadav2023ties"].title and ties["doi"] is None
    assert ties["code"] == [{"url": "https://github.com/prateeky2806/ties-merging", "official": True, "note": None}]
    method = next(row for row in document["methods"] if row["id"] == "ties_merging")
    assert method["implementation"] == "reference_impls.task_vectors.ties_merging:ties_merging"
    assert method["chapter"] == "task_vectors" and method["requirements"]["base"] is True


def test_a_record_can_be_rebuilt_from_the_json(capsys):
    assert main(["export", "--format", "json", "--catalog", str(TOY)]) == 0
    document = json.loads(capsys.readouterr().out)
    catalog = load(TOY.parent, TOY.name)
    for row in document["papers"]:
        id = row.pop("id")
        assert Paper(**row).model_dump() == catalog.papers[id].model_dump()
    assert all(row["implementation"] is None for row in document["methods"])


@pytest.mark.parametrize("format", ["json", "bibtex"])
def test_a_file_gets_the_same_bytes_as_standard_output(project, capsys, format):
    replace(project, "catalog/papers/2023/yadav2023ties.yaml", "Derek Tam", "Dérek Tâm 譚")
    assert main(["export", "--format", format]) == 0
    shown = capsys.readouterr().out
    assert main(["export", "--format", format, "-o", "out.txt"]) == 0
    assert (project / "out.txt").read_bytes() == shown.encode("utf-8") and "Dérek Tâm 譚" in shown


def test_a_broken_record_stops_the_export(project, capsys):
    replace(project, "catalog/papers/2023/yadav2023ties.yaml", "year: 2023", "year: [2023")
    assert main(["export", "--format", "json", "-o", "out.json"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and "yadav2023ties.yaml:12: YAML cannot be read" in err and not (project / "out.json").exists()


def test_a_file_that_cannot_be_written_is_named_in_one_line(project, capsys):
    assert main(["export", "--format", "json", "-o", "nowhere/out.json"]) == 1
    err = capsys.readouterr().err
    assert err == "nowhere/out.json: cannot be written (No such file or directory); name another file with -o\n"
