"""Every rule finds its broken record, at the right line and in one line, and says how to mend it."""

# ruff: noqa: E501  (a table with one row a case)

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools.toy import TOY, replace, write
from tools.__main__ import main
from tools.rules import RULES

ROOT = Path(__file__).parents[2]
SOUPS = "catalog/papers/2022/wortsman2022soups.yaml"
TASK = "catalog/papers/2023/ilharco2023task.yaml"
TIES = "catalog/papers/2023/yadav2023ties.yaml"
REBASIN = "catalog/papers/2023/ainsworth2023gitrebasin.yaml"
CURVES = "catalog/papers/2018/garipov2018loss.yaml"
TIES_METHOD = "catalog/methods/task_vectors/ties_merging.yaml"
SUM_METHOD = "catalog/methods/task_vectors/task_arithmetic.yaml"
BLOG = "catalog/resources/peft-model-merging.yaml"
CODEBASE = "catalog/codebases/mergekit.yaml"
LIST = "catalog/reading_lists/first-steps.yaml"
TAXONOMY = "catalog/taxonomy.yaml"
TIES_MODULE = "reference_impls/task_vectors/ties_merging.py"
SUM_MODULE = "reference_impls/task_vectors/task_arithmetic.py"
REQUIRED = "requirements:\n  base: true\n  data: none\n  gradients: false\n  training: false\n  same_init: true\n"


def check(capsys, *arguments: str) -> tuple[int, list[str]]:
    code = main(["check", *arguments])
    return code, capsys.readouterr().out.splitlines()


def test_a_sound_catalog_is_counted_in_one_line(project, capsys):
    code, lines = check(capsys)
    assert code == 0
    assert lines == ["5 papers, 2 methods, 1 codebase, 1 resource, 1 reading list, 4 taxonomy nodes, 5 venues: no problems"]


def test_the_toy_catalog_is_sound_on_its_own(capsys):
    code, lines = check(capsys, "--catalog", str(TOY))
    assert code == 0 and len(lines) == 1


BROKEN = {
    # --- YAML and schema ---
    "syntax": (SOUPS, "year: 2022", "year: [2022", 17, "YAML cannot be read"),
    "colon in plain text": (TIES, "summary: Trims", "summary: TIES: trims", 21, "YAML cannot be read"),
    "tab": (SOUPS, "year: 2022", "\tyear: 2022", 16, "YAML cannot be read"),
    "key twice": (SOUPS, "year: 2022\n", "year: 2022\nyear: 2021\n", 17, "'year' stands twice; keep one"),
    "alias": (TIES, "  - TIES\n", "  - &name TIES\n  - *name\n", 4, "used again by a YAML alias; write the value out"),
    "number for text": (TIES, '"2306.01708"', "2306.01708", 14, "(YAML float); put it in double quotes"),
    "date for text": (TIES, "year: 2023", "year: 2023-06-02", 11, "(YAML timestamp); put it in double quotes"),
    "text for number": (TIES, "year: 2023", 'year: "2023"', 11, "write a whole number"),
    "unknown key": (TIES, "year: 2023", "yeer: 2023", 11, "unknown key 'yeer'; did you mean 'year'?"),
    "unknown key inside": (TIES, "    official: true", "    offical: true", 20, "unknown key 'offical'; did you mean 'official'?"),
    "missing key": (TIES, "kind: method\n", "", 1, "kind is missing; add it"),
    "unknown kind": (TIES, "kind: method", "kind: metod", 13, "did you mean 'method'?"),
    "bad arXiv id": (TIES, '"2306.01708"', '"2306.1708x"', 14, "string should match pattern"),
    "empty list": (CODEBASE, "papers:\n  - yadav2023ties", "papers: yadav2023ties", 5, "papers: 'yadav2023ties'"),
    "not a link": (CODEBASE, "https://github", "ftp://github", 2, "not an http(s) link: 'ftp://github.com/arcee-ai/mergekit'"),
    "script link": (TIES, "https://github.com/prateeky2806/ties-merging", "javascript:alert(1)", 19, "not an http(s) link"),
    "invisible": (CODEBASE, "name: mergekit", 'name: "merge\\u202Ekit"', 1, "invisible character U+202E"),
    "template left": (CODEBASE, "name: mergekit", "name: TODO", 1, "left from the template; fill it in"),
    "not a map": (CODEBASE, (TOY / "codebases/mergekit.yaml").read_text(), "- a\n", 1, "the record: ['a']"),
    "empty file": (CODEBASE, (TOY / "codebases/mergekit.yaml").read_text(), "", 1, "empty file"),
    "node without a summary": (TAXONOMY, "  summary: The result is a mean of the weights.\n", "", 11, "summary is missing"),
    # --- references ---
    "unknown taxonomy": (TIES, "merging/task-vectors", "merging/task-vector", 17, "unknown taxonomy node 'merging/task-vector'; did you mean 'merging/task-vectors'?"),
    "unknown venue": (TIES, "venue: neurips", "venue: nips", 12, "unknown venue 'nips'; did you mean 'neurips'?"),
    "unknown paper": (BLOG, "yadav2023ties", "yadav2023tie", 8, "unknown paper 'yadav2023tie'; did you mean 'yadav2023ties'?"),
    "unknown origin": (SUM_METHOD, "ilharco2023task", "ilharco2022task", 5, "unknown paper 'ilharco2022task'; did you mean 'ilharco2023task'?"),
    "unknown method": (TIES_METHOD, "method: task_arithmetic", "method: task_arithmetics", 18, "did you mean 'task_arithmetic'?"),
    "nothing near": (BLOG, "yadav2023ties", "zzz1999q", 8, "add it to catalog/papers/ or name one that is there"),
    "unknown codebase in a list": (LIST, "codebase: mergekit", "codebase: mergekitt", 27, "did you mean 'mergekit'?"),
    "unknown node in a list": (LIST, "      - merging/averaging", "      - merging/average", 8, "did you mean 'merging/averaging'?"),
    "no target": (LIST, "      - codebase: mergekit\n        listed_as", "      - listed_as", 27, "an entry with no target; name exactly one"),
    "two targets": (LIST, "      - codebase: mergekit\n", "      - paper: garipov2018loss\n        codebase: mergekit\n", 27, "an entry with paper and codebase"),
    "itself": (TIES_METHOD, "method: task_arithmetic", "method: ties_merging", 18, "ties_merging names itself; delete it"),
    "list item twice": (TIES, "  - TIES\n", "  - TIES\n  - TIES\n", 5, "'TIES' stands twice in `aliases`; delete one"),
    "author twice": (TIES, "  - Derek Tam\n", "  - Derek Tam\n  - Prateek Yadav\n", 8, "'Prateek Yadav' stands twice in `authors`"),
    # --- papers ---
    "arXiv id twice": (TIES, '"2306.01708"', '"2203.05482"', 14, f"the arXiv id 2203.05482 is also in {SOUPS}"),
    "arXiv id as a link": (TIES, "openreview: xtaX3WyCj1", "url: https://arxiv.org/abs/2203.05482", 15, f"the arXiv id 2203.05482 is also in {SOUPS}"),
    "arXiv id as a DOI": (TIES, "openreview: xtaX3WyCj1", "doi: 10.48550/arXiv.2203.05482", 15, f"the arXiv id 2203.05482 is also in {SOUPS}"),
    "OpenReview id twice": (TIES, "xtaX3WyCj1", "CQsmMYmlP5T", 15, f"the OpenReview id CQsmMYmlP5T is also in {REBASIN}"),
    "title twice": (TIES, '"TIES-Merging: Resolving Interference When Merging Models"', '"Git RéBasin: merging models, modulo permutation symmetries"', 1, f"nearly the title of {REBASIN}"),
    "title with a slip": (TIES, '"TIES-Merging: Resolving Interference When Merging Models"', '"Git Re-Basin: Merging Model modulo Permutation Symmetries"', 1, f"nearly the title of {REBASIN}"),
    "before it was posted": (TIES, "year: 2023", "year: 2022", 14, "arXiv id 2306.01708 is of 2023, after the year 2022"),
    "code of others": (TIES, "prateeky2806/ties-merging", "TimGaripov/dnn-mode-connectivity.git", 19, f"also claimed by {CURVES}, which shares no author"),
    "code twice": (REBASIN, "themrzmaster/git-re-basin-pytorch", "Samuela/git-re-basin/", 19, "stands twice; delete one"),
    "not to be found": (SOUPS, 'arxiv: "2203.05482"\n', "", 1, "no arXiv id, DOI, OpenReview id or link; add at least one"),
    "link twice": (CODEBASE, "https://github.com/arcee-ai/mergekit", "https://huggingface.co/docs/peft/en/developer_guides/model_merging/", 2, ""),
    # --- taxonomy, methods ---
    "node without parent": (TAXONOMY, "connectivity:\n", "alignment/linear:\n  name: L\n  summary: S.\n  excludes: E.\n  introduced_by: garipov2018loss\nconnectivity:\n", 1, "alignment/linear has no parent; add alignment"),
    "node without papers": (TAXONOMY, "merging/averaging:\n", "merging/none:\n  name: Nothing\n  summary: S.\n  excludes: E.\n  introduced_by: wortsman2022soups\nmerging/averaging:\n", 11, "no paper is in merging/none or below it"),
    "introduced elsewhere": (TAXONOMY, "introduced_by: ilharco2023task", "introduced_by: garipov2018loss", 20, "garipov2018loss introduces merging/task-vectors but is not in it or below it"),
    "introduced by nobody": (TAXONOMY, "introduced_by: ilharco2023task", "introduced_by: ilharco2024task", 20, "unknown paper 'ilharco2024task'; did you mean 'ilharco2023task'?"),
    "bad node id": (TAXONOMY, "connectivity:\n", "Con_nect:\n  name: C\n  summary: S.\n  excludes: E.\n  introduced_by: garipov2018loss\nconnectivity:\n", 1, "'Con_nect' is not an id"),
    "circle": (SUM_METHOD, "  inference: one model\n", "  inference: one model\nrelated:\n  - method: ties_merging\n    how: builds on\n", 18, "methods in a circle: "),
    "from nowhere": (SUM_METHOD, "introduced_by: ilharco2023task", "introduced_by: null", 5, "introduced by no paper and no note"),
    "origin twice": (SUM_METHOD, "task\ntaxonomy", "task\npapers:\n  - ilharco2023task\ntaxonomy", 7, "ilharco2023task is already named by introduced_by"),
    "no such test": (TIES_METHOD, "test_sign_is_elected_by_mass_and_not_by_count", "test_sign_is_elected_by_mass", 33, "did you mean 'test_sign_is_elected_by_mass_and_not_by_count'?"),
    # --- format ---
    "order of keys": (TIES, "year: 2023\nvenue: neurips\n", "venue: neurips\nyear: 2023\n", 11, "not in the canonical format; run `python -m tools fmt`"),
    "quotes": (CODEBASE, "name: mergekit", "name: 'mergekit'", 1, "not in the canonical format"),
    "empty value": (CODEBASE, "name: mergekit\n", "name: mergekit\nnote: null\n", 2, "not in the canonical format"),
    "no newline at the end": (BLOG, "  - ties_merging\n", "  - ties_merging", 10, "not in the canonical format"),
    "comment": (TIES, "year: 2023", "year: 2023 # of NeurIPS", 11, "a comment; records have none"),
    "stale schema": ("catalog/schema/papers.json", '"title": "papers"', '"title": "essays"', 1, "run `python -m tools fmt`"),
    # --- code ---
    "cites another paper": (TIES_MODULE, "yadav2023ties", "yadav2024ties", 1, "the module cites yadav2024ties, its record yadav2023ties"),
    "cites no paper": (TIES_MODULE, " (yadav2023ties)", "", 1, "begin the docstring with `TIES-Merging (yadav2023ties).`"),
    "no function": (TIES_MODULE, "def ties_merging", "def ties", 1, "no function ties_merging in the module"),
    "not Python": (TIES_MODULE, "    return base", "    return base)", 5, "not Python"),
}
ALSO = {  # mistakes that break a second rule, and rightly so
    "arXiv id twice": ["refines task_arithmetic of 2022-12, but ties_merging is of 2022-03"],
    "from nowhere": ["the module cites ilharco2023task, its record none"],
    "node without parent": ["no paper is in alignment/linear or below it"],
    "bad node id": ["no paper is in Con_nect or below it"],
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_record_is_named_with_its_line(project, capsys, name):
    path, old, new, line, message = BROKEN[name]
    replace(project, path, old, new)
    code, lines = check(capsys)
    assert code == 1
    found = [text for text in lines if message in text and ": " in text]
    if name == "circle":
        assert len(found) == 1 and "task_arithmetic -> ties_merging -> task_arithmetic" in found[0]
        assert [text for text in lines if text not in found] == [text for text in lines if "of 2023-06, but task_arithmetic is of 2022-12" in text]
    elif name == "link twice":
        assert lines == [f"{BLOG}:2: the link https://huggingface.co/docs/peft/en/developer_guides/model_merging is also in {CODEBASE}; delete one of the two records or correct the link"]
    else:
        assert len(found) == 1 and found[0].startswith(f"{path}:{line}: "), lines
        others = [text for text in lines if text not in found]
        assert len(others) == len(ALSO.get(name, [])) and all(part in "".join(others) for part in ALSO.get(name, [])), lines


def test_a_method_descends_from_no_later_one(project, capsys):
    """By month where both papers are on arXiv (2212 and 2306 there), by year where one is not."""
    for old, new, dates in [
        ('"2212.04089"', '"2305.04089"', None),
        ('"2305.04089"', '"2307.04089"', ("2023-07", "2023-06")),
        ('arxiv: "2307.04089"\n', "", None),
        ("year: 2023", "year: 2024", ("2024", "2023")),
    ]:
        replace(project, TASK, old, new)
        code, lines = check(capsys)
        found = [text for text in lines if text.startswith(f"{TIES_METHOD}:18: refines task_arithmetic")]
        assert code == len(lines) - (not dates) == len(found) == bool(dates), lines
        if dates:
            assert f"of {dates[0]}, but ties_merging is of {dates[1]}; state the relation in task_arithmetic" in found[0]


MISPLACED = {
    "year folder": (TIES, "catalog/papers/2024/yadav2023ties.yaml", "the id yadav2023ties says 2023, the folder 2024; move it to papers/2023/"),
    "no year folder": (TIES, "catalog/papers/yadav2023ties.yaml", "in the wrong folder; move it to catalog/papers/<year>/<id>.yaml"),
    "wrong ending": (TIES, "catalog/papers/2023/yadav2023ties.yml", "'yadav2023ties.yml' is not a record"),
    "capitals": (CODEBASE, "catalog/codebases/MergeKit.yaml", "'MergeKit' is not an id"),
    "wrong chapter": (TIES_METHOD, "catalog/methods/task_vector/ties_merging.yaml", "in the wrong folder; did you mean 'task_vectors'?"),
    "other chapter": (TIES_METHOD, "catalog/methods/averaging/ties_merging.yaml", "no test 'test_sign_is"),
    "wrong kind": (CODEBASE, "catalog/codebase/mergekit.yaml", "'codebase' has no place in the catalog; did you mean 'codebases'?"),
    "in the open": (CODEBASE, "catalog/mergekit.yaml", "'mergekit.yaml' has no place in the catalog"),
    "no venues": ("catalog/venues.yaml", "catalog/README.md", "catalog/venues.yaml:1: no such file"),
}


@pytest.mark.parametrize("name", MISPLACED)
def test_a_misplaced_file_is_named(project, capsys, name):
    old, new, message = MISPLACED[name]
    (project / new).parent.mkdir(parents=True, exist_ok=True)
    (project / old).rename(project / new)
    code, lines = check(capsys)
    assert code == 1
    assert any(message in line and line.startswith((new, "catalog/venues.yaml")) for line in lines), lines


def test_one_id_in_two_folders_is_refused(project, capsys):
    write(project, "catalog/methods/averaging/ties_merging.yaml", (project / TIES_METHOD).read_text())
    code, lines = check(capsys)
    assert code == 1 and any("the id 'ties_merging' is taken by" in line for line in lines)


def test_a_doi_is_one_in_any_capitals(project, capsys):
    replace(project, TIES, "openreview: xtaX3WyCj1", "doi: 10.1000/ABC")
    replace(project, SOUPS, 'arxiv: "2203.05482"', 'arxiv: "2203.05482"\ndoi: 10.1000/abc')
    assert check(capsys)[1] == [f"{TIES}:15: the DOI 10.1000/abc is also in {SOUPS}; delete one of the two records or correct the DOI"]


def test_papers_with_a_common_author_may_share_code(project, capsys):
    replace(project, CURVES, "timgaripov/dnn-mode-connectivity", "samuela/git-re-basin")
    assert check(capsys)[0] == 1
    replace(project, CURVES, "  - Timur Garipov\n", "  - Timur Garipov\n  - S. Ainsworth\n")
    assert not [line for line in check(capsys)[1] if "code link" in line]


def test_code_that_others_wrote_may_be_named_by_many(project, capsys):
    replace(project, CURVES, "timgaripov/dnn-mode-connectivity\n    official: true", "samuela/git-re-basin\n    official: false")
    assert check(capsys)[0] == 0


def test_a_module_needs_a_record_and_a_test(project, capsys):
    write(project, "reference_impls/averaging/slerp.py", '"""Slerp."""\n\n\ndef slerp():\n    pass\n')
    assert check(capsys)[1] == [
        "reference_impls/averaging/slerp.py:1: no record for this module; write catalog/methods/averaging/slerp.yaml",
        "reference_impls/averaging/slerp.py:1: no test for this module; write tests/methods/averaging/test_slerp.py",
    ]


def test_a_method_without_origin_may_cite_one_of_its_papers(project, capsys):
    replace(project, SUM_METHOD, "introduced_by: ilharco2023task", "introduced_by: null")
    write(project, SUM_METHOD, (project / SUM_METHOD).read_text() + "note: Used before anybody named it.\n")
    assert "the module cites ilharco2023task, its record none" in check(capsys)[1][0]
    replace(project, SUM_METHOD, "introduced_by: null\n", "introduced_by: null\npapers:\n  - ilharco2023task\n")
    assert check(capsys)[0] == 0
    replace(project, SUM_MODULE, " (ilharco2023task)", "")
    assert check(capsys)[0] == 0


def test_every_broken_record_is_reported_in_one_run(project, capsys):
    replace(project, TIES, "venue: neurips", "venue: nips")
    replace(project, SOUPS, "year: 2022", "year: [2022")
    replace(project, BLOG, "kind: blog", "kind: vlog")
    code, lines = check(capsys)
    assert code == 1 and [line.split(":")[0] for line in lines] == [SOUPS, TIES, BLOG]


HOSTILE = {
    "not UTF-8": (b"name: \xff\n", "not UTF-8; save the file in UTF-8"),
    "control character": (b"name: a\x00b\n", "YAML cannot be read"),
    "deep nesting": (b"[" * 100_000, "YAML cannot be read"),
    "many aliases": (b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "used again by a YAML alias"),
    "a tag": (b"name: !!python/object/apply:os.system [echo]\n", "the YAML tag"),
    "two documents": (b"name: a\n---\nname: b\n", "YAML cannot be read"),
    "list as a key": (b"[a, b]: c\n", "is not text"),
    "number as a key": (b"2023: c\n", "the key '2023' is not text; put it in double quotes"),
    "huge": (b"name: " + b"a" * 1_000_001, "larger than 1000000 bytes"),
    "only a text": (b"hello\n", "'hello'"),
    "terminal codes": (b'name: "\\e[31m"\n"\\e[2J": 1\n', "unknown key '\\x1b[2J'"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bytes_end_in_one_clear_line(project, capsys, name):
    data, message = HOSTILE[name]
    (project / CODEBASE).write_bytes(data)
    code, lines = check(capsys)
    assert code == 1 and any(line.startswith(f"{CODEBASE}:") and message in line for line in lines), lines
    assert all(line.isprintable() for line in lines)


def test_an_unreadable_file_is_named(project, capsys):
    (project / CODEBASE).unlink()
    os.symlink("nowhere", project / CODEBASE)
    code, lines = check(capsys)
    assert code == 1 and lines[0].startswith(f"{CODEBASE}:1: cannot be read (No such file or directory)")


@pytest.mark.parametrize("command", (["check"], ["fmt"], ["export", "--format", "json"], ["new", "paper", "a2023b"]))
def test_a_missing_folder_is_named_in_one_line(project, capsys, command):
    assert main([*command, "--catalog", "nowhere"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("nowhere: no such folder; name the catalog with --catalog DIR")


def test_the_command_runs_from_a_shell(project):
    replace(project, TIES, "venue: neurips", "venue: nips")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    run = subprocess.run([sys.executable, "-m", "tools", "check"], capture_output=True, text=True, env=environment)
    assert run.returncode == 1 and run.stdout.startswith(f"{TIES}:12: unknown venue 'nips'")
    assert run.stderr == "1 problem in 1 file\n"


def test_every_rule_says_what_it_holds_for():
    assert all(rule.__doc__ and rule.__doc__.endswith(".") for rule in RULES)
