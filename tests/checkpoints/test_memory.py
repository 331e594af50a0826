"""Merging from disk takes less than half of the memory of the loop that one writes first.

Both sides run as processes of their own; the import of torch, which they share, is taken off. Time is for `benchmarks/`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.merge_checkpoints import Measured, compare, in_turn, measure

SIZE = "30MB"  # of each of four models


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("speed")
    subprocess.run([*alone(folder), "models"], check=True)
    return folder


def alone(folder: Path) -> list[str]:
    return [sys.executable, "benchmarks/merge_checkpoints.py", "--size", SIZE, "--work", str(folder), "--alone"]


@pytest.fixture(scope="module")
def torch_alone(work: Path) -> Measured:
    return measure([sys.executable, "-c", "import torch"], work / "log.txt")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["linear", "ties"])
def test_files_are_merged_in_half_of_the_memory_of_the_naive_loop(work: Path, torch_alone: Measured, method: str) -> None:
    ((naive,),) = in_turn(work / SIZE, [[*alone(work), f"naive-{method}"]], runs=1)
    ((ours,), _) = compare(work / SIZE, method, mergekit=None, runs=1, workers=2)
    assert ours.memory - torch_alone.memory <= 0.5 * (naive.memory - torch_alone.memory)
