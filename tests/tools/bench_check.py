"""How long the commands take on made-up catalogs: `python -m tests.tools.bench_check [PAPERS ...]`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.tools.generate import make_catalog


def main(sizes: list[int]) -> None:
    print(f"{'papers':>8} {'check':>8} {'fmt':>8} {'json':>8} {'bibtex':>8}   wall seconds, whole process, best of 3")
    for papers in sizes:
        with tempfile.TemporaryDirectory() as folder:
            home = str(make_catalog(Path(folder) / "catalog", papers))
            commands = (["check"], ["fmt"], ["export", "--format", "json"], ["export", "--format", "bibtex"])
            times = [min(_seconds([*command, "--catalog", home]) for _ in range(3)) for command in commands]
        print(f"{papers:>8} " + " ".join(f"{seconds:8.2f}" for seconds in times))


def _seconds(arguments: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "tools", *arguments], check=True, capture_output=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main([int(size) for size in sys.argv[1:]] or [500, 2000, 8000])
