"""`python -m tests.parity.matrix`: write down what the comparison with other libraries found, for the site.

One row per method, library and verdict; a test asserts that the file is what the adapters say today.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.parity.adapters import outcome
from tests.parity.load import Case, cases

FILE = Path(__file__).with_name("matrix.json")
NAMES = {"fusion-bench": "FusionBench", "peft": "PEFT", "yule-BUAA/MergeLM": "MergeLM"}  # as the records write them


def rows() -> list[dict]:
    found: dict[tuple, dict] = {}
    for case in cases():
        result = outcome(case)
        kind = "differs" if result.differs else "option" if result.option else "same"
        key = (result.method, library(case), kind, result.differs or result.option)
        row = found.setdefault(key, dict(zip(("method", "library", "verdict", "detail"), key)) | {"called": [], "cases": 0, "rtol": 0.0})
        row["called"] = sorted({*row["called"], *called(case)})
        row["cases"] += 1
        row["rtol"] = max(row["rtol"], case.rtol)
    order = ("same", "option", "differs")
    return sorted(found.values(), key=lambda row: (row["method"], row["library"].casefold(), order.index(row["verdict"]), row["detail"]))


def library(case: Case) -> str:
    name, _, version = case.peer.partition(" ")
    return f"{NAMES.get(name, name)} {version}"


def called(case: Case) -> list[str]:
    """What was called: mergekit's names for its methods, or the last part of a function's path."""
    by_name = re.search(r"\(method='(\w+)'\)", case.function)
    return [by_name[1]] if by_name else re.sub(r" \(.*|[{}]", "", case.function).split(".")[-1].split(",")


def main() -> None:
    FILE.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows()) + "\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
