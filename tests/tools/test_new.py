"""A new record comes from a template, says what is to be filled in, and never overwrites anything."""

import ast
import re

import pytest

from tools.__main__ import main
from tools.new import KIND_OF

FILES = {
    ("paper", "tang2024wemoe"): ["catalog/papers/2024/tang2024wemoe.yaml"],
    ("method", "averaging/slerp"): [
        "catalog/methods/averaging/slerp.yaml",
        "reference_impls/averaging/slerp.py",
        "tests/methods/averaging/test_slerp.py",
    ],
    ("codebase", "fusion-bench"): ["catalog/codebases/fusion-bench.yaml"],
    ("resource", "a-blog"): ["catalog/resources/a-blog.yaml"],
    ("reading-list", "second-steps"): ["catalog/reading_lists/second-steps.yaml"],
}


def test_there_is_a_case_for_every_kind():
    assert {kind for kind, _ in FILES} == set(KIND_OF)


@pytest.mark.parametrize("kind, id", FILES)
def test_the_files_are_written_where_the_id_says(project, capsys, kind, id):
    assert main(["new", kind, id]) == 0
    assert capsys.readouterr().out.splitlines() == [f"wrote {path}" for path in FILES[kind, id]]
    for path in FILES[kind, id]:
        text = (project / path).read_text()
        assert "TODO" in text and "{{" not in text and text.endswith("\n") and not text.endswith("\n\n")
        if path.endswith(".py"):
            ast.parse(text)


@pytest.mark.parametrize("kind, id", FILES)
def test_what_is_left_to_fill_in_is_all_that_check_finds(project, capsys, kind, id):
    main(["new", kind, id])
    capsys.readouterr()
    assert main(["check"]) == 1
    lines = capsys.readouterr().out.splitlines()
    left = [line for line in lines if "is left from the template; fill it in" in line]
    record = FILES[kind, id][0]
    blanks = [number for number, line in enumerate((project / record).read_text().splitlines(), 1) if "TODO" in line]
    assert sorted(int(re.match(r"[^:]+:(\d+):", line)[1]) for line in left) == blanks
    assert set(lines) - set(left) == set()


@pytest.mark.parametrize("kind, id", FILES)
def test_formatting_a_template_keeps_its_blanks(project, capsys, kind, id):
    main(["new", kind, id])
    before = (project / FILES[kind, id][0]).read_text()
    assert main(["fmt"]) == 0
    assert (project / FILES[kind, id][0]).read_text().count("TODO") == before.count("TODO")


@pytest.mark.parametrize("kind, id", FILES)
def test_nothing_is_overwritten(project, capsys, kind, id):
    main(["new", kind, id])
    for path in FILES[kind, id]:
        (project / path).write_text("mine\n")
    capsys.readouterr()
    assert main(["new", kind, id]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err == f"{FILES[kind, id][0]}: exists already; nothing written\n"
    assert all((project / path).read_text() == "mine\n" for path in FILES[kind, id])


def test_a_method_with_a_record_gets_the_module_and_the_test_that_it_lacks(project, capsys):
    main(["new", "method", "averaging/slerp"])
    record, module, test = (project / path for path in FILES["method", "averaging/slerp"])
    record.write_text("mine\n")
    test.unlink()
    capsys.readouterr()
    assert main(["new", "method", "averaging/slerp"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["kept", "kept", "wrote"]
    assert record.read_text() == "mine\n" and test.is_file()


@pytest.mark.parametrize(
    "kind, id, message",
    [
        ("method", "slerp", "slerp: write chapter/id; the chapters are averaging, task_vectors"),
        ("method", "cooking/slerp", "cooking/slerp: write chapter/id"),
        ("method", "averaging/Slerp", "'averaging/Slerp' is not an id; write lower case with underscores"),
        ("paper", "2023/yadav2023ties", "2023/yadav2023ties: an id has no slash; write yadav2023ties"),
        ("paper", "ties", "'ties' is not an id; write family name, year and a telling word"),
        ("paper", "../../etc2023x", "an id has no slash"),
        ("codebase", "Fusion_Bench", "'Fusion_Bench' is not an id; write lower-case words with hyphens"),
        ("resource", "", "'' is not an id"),
    ],
)
def test_a_bad_id_is_refused_in_one_line(project, capsys, kind, id, message):
    assert main(["new", kind, id]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and message in err
