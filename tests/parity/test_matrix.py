"""The file that the site shows is what the comparison says today."""

import json

from tests.parity import matrix
from tests.parity.load import cases


def test_the_matrix_is_current():
    stored = json.loads(matrix.FILE.read_text(encoding="utf-8"))
    assert stored == matrix.rows(), "run `python -m tests.parity.matrix`"


def test_no_case_is_left_out():
    assert sum(row["cases"] for row in json.loads(matrix.FILE.read_text(encoding="utf-8"))) == len(cases())
