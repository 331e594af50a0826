"""Several tensors at once: in forked processes where the system has them, in threads elsewhere.

PyTorch hands the interpreter's lock over before and after every operation on a block. Two threads wait for it a third of their
time, more would wait most of it; processes don't. They are forked from this one, so that they have all that it has, share the
memory that PyTorch takes, and end when it ends.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

PR_SET_PDEATHSIG = 1  # of Linux's prctl.h

_function: Callable[[int], Any] | None = None  # what forked processes are to call


class Workers:
    """A number of workers that call a function, each call in one of them.

    Attributes:
        count: how many; one, or one call, is this process itself.
        stop: is set when a call has failed or the run was interrupted; long calls look at it.
    """

    def __init__(self, count: int, device: str = "cpu") -> None:
        self.count = count
        forks = count > 1 and sys.platform == "linux" and device == "cpu"  # a GPU's context doesn't survive a fork
        self._context = get_context("fork") if forks else None
        self.stop = threading.Event() if self._context is None else self._context.Event()

    def each(self, function: Callable[[int], Any], count: int, done: Callable[[int, Any], None]) -> None:
        """Call `function` of 0, 1, ... up to `count`, and `done` of the number and the result, here, as they come.

        Raises:
            OSError: a process was killed.
            Exception: whatever the first failing call raised; what runs is told to stop, what waits is given up.
        """
        try:
            if min(self.count, count) <= 1:
                for number in range(count):
                    done(number, function(number))
                return
            with self._executor(function) as (pool, call):
                futures = {pool.submit(call, number): number for number in range(count)}
                try:
                    for future in as_completed(futures):
                        done(futures[future], self._result(future.result()))
                except BaseException:
                    self.stop.set()
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
        except BrokenProcessPool:
            raise OSError("a process that worked on a tensor was killed, for want of memory perhaps") from None

    def map(self, function: Callable[..., Any], *arguments: Sequence) -> list[Any]:
        """Return what `map` yields, for `core.blocks.working_in`."""
        calls, results = [*zip(*arguments)], {}
        self.each(lambda number: function(*calls[number]), len(calls), results.__setitem__)
        return [results[number] for number in range(len(calls))]

    @contextmanager
    def _executor(self, function: Callable[[int], Any]) -> Iterator[tuple[Executor, Callable[[int], Any]]]:
        global _function
        if self._context is None:
            with ThreadPoolExecutor(self.count) as pool:
                yield pool, function
            return
        _function = function
        with ProcessPoolExecutor(self.count, mp_context=self._context, initializer=_begin, initargs=(os.getpid(),)) as pool:
            yield pool, _call

    def _result(self, result: Any) -> Any:
        return result if self._context is None else pickle.loads(result)


def _call(number: int) -> bytes:
    return pickle.dumps(_function(number))  # as bytes: PyTorch would hand tensors over in shared memory


def _begin(parent: int) -> None:
    """In a new process: end with the one that forked it, and leave Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
