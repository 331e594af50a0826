"""Run demos on the browser's runtime in plain CPython: `python tests/demos/on_borch.py [method ...]` prints an answer a line.

Its own process, as `import torch` means borch here. What runs is the driver of the page's worker: at the start of the controls,
and with all of them at their lower and at their upper ends.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

ROOT = Path(__file__).parents[2]


def answer(driver, file: Path) -> dict:
    code = file.read_text(encoding="utf-8")
    recorded = (ROOT / "docs" / "demos" / "data" / f"{file.stem}.json").read_text(encoding="utf-8")
    controls = json.loads(recorded)["controls"]

    def run(end: str, against: str | None) -> dict:
        values = {control["name"]: control[end] for control in controls}
        found = json.loads(driver.run(file.stem, code, json.dumps(values), against))
        return {key: value for key, value in found.items() if key not in ("svg", "title", "reading")}

    first = run("start", recorded)
    return {"method": file.stem} | first | ({} if "error" in first else {end: run(end, None) for end in ("low", "high")})


def main(chosen: list[str]) -> None:
    sys.path.insert(0, str(ROOT / "docs" / "assets" / "lab"))
    import driver

    driver.start(str(ROOT))
    warnings.simplefilter("ignore")  # borch's own divisions by zero, whose results it then replaces
    for path in sorted((ROOT / "docs" / "demos").glob("*/*.py")):
        if not chosen or path.stem in chosen:
            print(json.dumps(answer(driver, path)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
