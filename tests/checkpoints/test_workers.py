"""Several processes do what one does; whatever becomes of one of them, the run ends and nothing is left running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from reference_impls.checkpoints.errors import CheckpointError
from reference_impls.checkpoints.workers import Workers


@pytest.mark.parametrize("device", ["cpu", "cuda"])  # processes, and threads
@pytest.mark.parametrize("count", [1, 3])
def test_results_come_in_the_order_of_the_calls(count: int, device: str) -> None:
    squares = Workers(count, device).map(lambda x, y: torch.tensor([x * y]), range(20), range(20))
    assert torch.cat(squares).tolist() == [x * x for x in range(20)]


def test_several_processes_work_and_are_gone_afterwards() -> None:
    ids = set(Workers(3).map(lambda _: (time.sleep(0.05), os.getpid())[1], range(12)))
    assert 1 < len(ids) <= 3 and os.getpid() not in ids
    assert not any(os.path.exists(f"/proc/{number}") for number in ids)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("count", [1, 2])
def test_a_failure_is_raised_here_and_stops_the_others(count: int, device: str) -> None:
    workers = Workers(count, device)
    done = []

    def call(number: int) -> None:
        if number == 1:
            raise CheckpointError("that one can't be read")
        while number and not workers.stop.is_set():  # the one that runs meanwhile
            time.sleep(0.01)

    with pytest.raises(CheckpointError, match="that one can't be read"):
        workers.each(call, 50, lambda number, _: done.append(number))
    assert len(done) < 5


def test_a_failure_of_what_is_done_with_a_result_stops_them_too() -> None:
    workers = Workers(2)

    def full(number: int, _: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        workers.each(lambda number: number, 50, full)
    assert workers.stop.is_set()


def test_a_process_that_is_killed_ends_the_run_with_one_line() -> None:
    with pytest.raises(OSError, match="a process that worked on a tensor was killed"):
        Workers(2).map(lambda number: os.kill(os.getpid(), signal.SIGKILL) if number == 3 else number, range(8))


def test_processes_end_with_the_one_that_forked_them() -> None:
    code = (
        "import os, time\nfrom reference_impls.checkpoints.workers import Workers\n"
        "Workers(2).map(lambda _: (os.write(1, f'{os.getpid()}\\n'.encode()), time.sleep(60)), range(2))"
    )
    run = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    ids = [int(run.stdout.readline()) for _ in range(2)]
    run.kill()
    run.wait()
    deadline = time.monotonic() + 5
    while any(alive(number) for number in ids):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(number: int) -> bool:
    try:
        with open(f"/proc/{number}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
