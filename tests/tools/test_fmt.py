"""The formatter changes the look of a record and nothing else."""

import json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tools.toy import TOY, replace
from tools import fmt
from tools.__main__ import main
from tools.catalog import list_files, read
from tools.schema import schemas

TIES = "catalog/papers/2023/yadav2023ties.yaml"

texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=30) | st.sampled_from(
    ["yes", "NO", "null", "~", "", " ", "1", "1_0", "0x1F", "1e5", ".5", "-", "- a", "?", ":", "a: b", "a #b", "#a", "a:", "1:30"]
    + ["2023-01-01", "'", '"', "\\", "[a]", "{a", "&a", "*a", "!a", "%a", "@a", "`a", "---", "...", "<<", "="]
    + ["a\nb", "\ta", "é", "日本", "🙂", "\u202e", "\ufeff", "\x85"]
)
values = st.recursive(
    texts | st.integers() | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(texts, values, min_size=1, max_size=5))
def test_every_value_comes_back_exactly(value):
    lines = "\n".join(fmt._map(value, None, 0)) + "\n"
    assert yaml.load(lines, Loader=yaml.CSafeLoader) == value
    assert yaml.load(lines, Loader=yaml.SafeLoader) == value


@settings(max_examples=300, deadline=None)
@given(texts)
def test_text_is_plain_wherever_that_is_safe(text):
    plain = fmt.scalar(text)
    assert yaml.load(f"k: {plain}\n", Loader=yaml.CSafeLoader) == {"k": text}
    assert plain == text or plain.startswith('"')


@pytest.mark.parametrize(
    "text, written",
    [
        ("Git Re-Basin", "Git Re-Basin"),
        ("Erdős and Müller", "Erdős and Müller"),
        ("a:b, [c] #d-free? 100%", '"a:b, [c] #d-free? 100%"'),
        ("https://host/path#part", "https://host/path#part"),
        ("TIES: x", '"TIES: x"'),
        ("2306.01708", '"2306.01708"'),
        ("2023", '"2023"'),
        ("no", '"no"'),
        ("26(307):1-38", "26(307):1-38"),
        ('the "sum"', 'the "sum"'),
        ('"sum"', '"\\"sum\\""'),
        ("line\nbreak\u202e", '"line\\nbreak\\u202E"'),
    ],
)
def test_quotes_by_example(text, written):
    assert fmt.scalar(text) == written


def test_the_canonical_record_by_example():
    value = {
        "summary": "Long. " * 40 + "End.",
        "note": None,
        "code": [{"official": True, "url": "https://a.b/c"}, {"note": "JAX", "url": "https://a.b/d", "official": False}],
        "aliases": [],
        "title": "A: B",
        "surprise": 1,
    }
    assert fmt.canonical("papers", value) == (
        'title: "A: B"\n'
        "code:\n"
        "  - url: https://a.b/c\n"
        "    official: true\n"
        "  - url: https://a.b/d\n"
        "    official: false\n"
        "    note: JAX\n"
        f"summary: {'Long. ' * 40}End.\n"
        "surprise: 1\n"
    )


def test_a_null_that_says_something_stays():
    assert "introduced_by: null\n" in fmt.canonical("methods", {"introduced_by": None, "note": None})


def test_formatting_twice_changes_nothing(project, capsys):
    text = (project / TIES).read_text()
    aliases = "aliases:\n  - Resolving Interference When Merging Models\n  - TIES\n"
    messy = text.replace(aliases, "aliases: [Resolving Interference When Merging Models, 'TIES']\n")
    messy = messy.replace("neurips", "'neurips'")
    assert messy != text
    (project / TIES).write_text("---\n" + messy + "\n\n", newline="\r\n")
    assert main(["fmt"]) == 0
    assert (project / TIES).read_bytes() == text.encode()
    assert "1 written" in capsys.readouterr().err
    assert main(["fmt"]) == 0 and " 0 written" in capsys.readouterr().err


def test_every_toy_record_is_canonical_and_valid_by_its_json_schema():
    from jsonschema import Draft202012Validator

    for kind, _, path in list_files(TOY):
        source, problems = read(path)
        assert not problems and fmt.canonical(kind, source.value) == source.text
        Draft202012Validator(json.loads(schemas()[f"{kind}.json"])).validate(source.value)


def test_a_json_schema_refuses_what_the_type_refuses():
    from jsonschema import Draft202012Validator

    for kind, _, path in list_files(TOY):
        source, _ = read(path)
        broken = {**source.value, "Sur prise": "x"}
        assert not Draft202012Validator(json.loads(schemas()[f"{kind}.json"])).is_valid(broken), kind


COMMENTS = {
    "of its own": ("year: 2023\n", "# the year\nyear: 2023\n", 11),
    "after a value": ("year: 2023\n", "year: 2023 # the year\n", 11),
    "in a list": ("  - TIES\n", "  # short\n  - TIES\n", 4),
    "at the end": ("interference between task vectors.\n", "interference between task vectors.\n# end\n", 22),
    "after quotes with a hash": ('arxiv: "2306.01708"\n', 'arxiv: "2306.01708" # "#"\n', 14),
    "of a block": ("summary: ", "summary: > # folded\n  ", 21),
}


@pytest.mark.parametrize("name", COMMENTS)
def test_a_comment_is_never_lost(project, capsys, name):
    old, new, line = COMMENTS[name]
    replace(project, TIES, old, new)
    text = (project / TIES).read_text()
    assert main(["fmt"]) == 1
    assert capsys.readouterr().out == f"{TIES}:{line}: a comment would be lost; move it to `note` or delete it\n"
    assert (project / TIES).read_text() == text


@pytest.mark.parametrize("value", ["https://a.b/c#d", '"x # y"', "'# z'", "a#b", ">\n  one # two\n  three", "|\n  # text"])
def test_a_hash_inside_a_value_is_no_comment(value):
    assert fmt.first_comment(f"a: {value}\nb: c\n") is None
    assert fmt.first_comment(f"a: {value}\nb: c # d\n") == 2 + value.count("\n")


def test_a_file_that_cannot_be_read_stays_as_it_is(project, capsys):
    replace(project, TIES, "year: 2023", "year: [2023")
    text = (project / TIES).read_text()
    assert main(["fmt"]) == 1
    assert f"{TIES}:12: YAML cannot be read" in capsys.readouterr().out
    assert (project / TIES).read_text() == text


def test_only_the_named_files_are_written(project, capsys):
    soups = "catalog/papers/2022/wortsman2022soups.yaml"
    for path in (TIES, soups):
        (project / path).write_text((project / path).read_text() + "\n")
    assert main(["fmt", TIES]) == 0
    assert not (project / TIES).read_text().endswith("\n\n") and (project / soups).read_text().endswith("\n\n")
    assert main(["fmt", "catalog/papers/2022"]) == 0
    assert not (project / soups).read_text().endswith("\n\n")


@pytest.mark.parametrize("path", ["nowhere.yaml", "catalog/schema", "reference_impls"])
def test_a_path_without_records_is_refused(project, capsys, path):
    assert main(["fmt", path]) == 1
    assert capsys.readouterr().err == f"{path}: no record there; name a .yaml file or a folder inside catalog\n"
