import ast
from pathlib import Path

import pytest

import reference_impls as ri
from tools.steps import Step, read_steps

ROOT = Path(__file__).parents[2]
FILES = {name: ROOT / (module.replace(".", "/") + ".py") for name, module in ri.methods().items()}

MODULE = '''"""Title."""
from reference_impls.core.state_dict import check_same_structure, task_vector


def toy(a, b):
    """Do it.

    >>> toy(1, 2)
    """
    check_same_structure(a, b)
    tau = _outer(_inner(a), b)  # noqa: E501
    # first the long remark
    # over two lines
    values = map(_handed, tau)
    return task_vector(values, a)  # (n, d)


def _outer(x, y):
    """Come second."""


def _inner(x):
    """Come first. Then stop.

    More.
    """


def _handed(x):
    """Return what it got: a test."""
'''


def test_steps_stand_in_the_order_in_which_they_run(tmp_path):
    file = tmp_path / "reference_impls" / "averaging" / "toy.py"
    file.parent.mkdir(parents=True)
    file.write_text(MODULE)
    core = tmp_path / "reference_impls" / "core"
    core.mkdir()
    (core / "state_dict.py").write_text('def task_vector(a, b):\n    """Return $a - b$."""\ndef check_same_structure():\n    """Refuse."""\n')
    assert read_steps(file, tmp_path) == [
        Step(11, "_inner", "Come first. Then stop."),
        Step(11, "_outer", "Come second."),
        Step(12, None, "first the long remark over two lines"),
        Step(14, "_handed", "What it got: a test."),
        Step(15, "task_vector", "$a - b$."),
    ]


@pytest.mark.parametrize("method", FILES)
def test_every_method_says_its_steps_and_each_is_at_its_line(method):
    lines = FILES[method].read_text(encoding="utf-8").splitlines()
    steps = read_steps(FILES[method], ROOT)
    assert steps, f"{method} calls nothing that has a docstring and has no comment; say at the line what it computes"
    for step in steps:
        assert (step.name or step.text.split()[0]) in lines[step.line - 1]
    first = next(node for node in ast.parse("\n".join(lines)).body if getattr(node, "name", "") == method)
    assert all(step.line > first.lineno for step in steps)
