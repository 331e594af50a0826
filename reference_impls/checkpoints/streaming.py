"""The engine: carries out a recipe with the reference functions, on files of any size.

A reference function gets tensors that are read in blocks when they are needed (`core.blocks.Streamed`), and returns ones that
say how their blocks are computed; these are written one by one. Memory for a few blocks a thread is enough, except for the
methods that `methods.METHODS` says need more. Blocks are cut in the same way for one thread and for many, in memory and on
disk, so that the result is the same to the bit.
"""

from __future__ import annotations

import ctypes
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from math import prod
from typing import Any, Protocol

import torch
from torch import Tensor

from reference_impls.checkpoints.aligning import align
from reference_impls.checkpoints.errors import CheckpointError
from reference_impls.checkpoints.methods import function, is_joint, streaming
from reference_impls.checkpoints.recipe import Recipe, Source, Task
from reference_impls.checkpoints.workers import Workers
from reference_impls.core.blocks import Stored, Streamed, block_of, ranges, working_in

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of malloc.h
KEEP = 100_000_000  # bytes, over all workers: what is needed twice may be kept up to this size


class Output(Protocol):
    """Where the result goes, as far as the engine knows: see `writing.Output`."""

    def write(self, name: str, start: int, block: Tensor) -> None: ...

    def finish(self, name: str) -> None: ...


def run(
    recipe: Recipe,
    output: Output,
    *,
    tasks: Sequence[Task] | None = None,
    workers: int = 1,
    device: str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> None:
    """Compute the tensors of a recipe and write them.

    Args:
        recipe: what to do.
        output: an open `writing.Output`, or anything that has its `write` and `finish`.
        tasks: those of the recipe that are to be done, e.g. what an earlier run left. Default None: all.
        workers: how many tensors are worked on at once; the result doesn't depend on it.
        device: where the numbers are computed.
        progress: called with the number of entries that have been written since the last call.

    Raises:
        CheckpointError: a method that doesn't run on files, options that differ where one number belongs to the whole model,
            a file that can't be read.
    """
    wanted = {task.name for task in (recipe.tasks if tasks is None else tasks)}
    pool = Workers(workers, device)
    engine = _Engine(recipe, output, pool, torch.device(device))
    groups = [(job, [task for task in job if task.name in wanted]) for job in jobs(recipe)]

    def write(tasks: Sequence[Task], merged: Callable[[Task], Mapping[str, Tensor | Streamed]]) -> None:
        largest_first = sorted(tasks, key=lambda task: -recipe.like(task).numel)

        def done(number: int, _: None) -> None:
            output.finish(largest_first[number].name)
            if progress is not None:
                progress(recipe.like(largest_first[number]).numel)

        pool.each(lambda number: engine.write(largest_first[number], merged(largest_first[number])), len(tasks), done)

    with _one_thread_each():
        write([task for job, left in groups for task in left if len(job) == 1], lambda task: engine.merge([task]))
        for job, left in groups:
            if len(job) > 1 and left:
                with working_in(pool):
                    together = engine.merge(job)
                write(left, lambda task: together)  # noqa: B023


def jobs(recipe: Recipe) -> list[list[Task]]:
    """Return the tasks in groups that don't need each other: one by one, or together where a number belongs to the whole model.

    Raises:
        CheckpointError: a method that doesn't run on files, or options that differ between tensors of one group.
    """
    found: list[list[Task]] = []
    joint: dict[str, list[Task]] = {}
    for task in recipe.tasks:
        streaming(task.method)
        if not recipe.like(task).dtype.is_floating_point or not is_joint(task.method, task.options):
            found.append([task])
            continue
        group = joint.setdefault(task.method, [])
        if group and group[0].options != task.options:
            raise CheckpointError(
                f"{task.method} looks at the whole model here, so that all tensors need the same options; "
                f"{task.name!r} has other ones than {group[0].name!r} (a rule that looks at each tensor by itself can take them)"
            )
        group.append(task)
    return found + [*joint.values()]


class _Engine:
    """What all jobs of a run share."""

    def __init__(self, recipe: Recipe, output: Output, pool: Workers, device: torch.device) -> None:
        self.recipe, self.output, self.workers, self.stop, self.device = recipe, output, pool.count, pool.stop, device

    def merge(self, job: Sequence[Task]) -> dict[str, Tensor | Streamed]:
        """Call the reference function on the tensors of a job; their blocks are still to be computed."""
        first = job[0]
        if not self.recipe.like(first).dtype.is_floating_point:
            return {first.name: self._stored(first, self.recipe.like(first).dtype, first.base or first.models[0], keep=False)}
        if first.method == "passthrough":
            copied = self._tensors(job, first.models[:1])
            scale = first.options.get("scale", 1.0)
            return copied if scale == 1.0 else function("uniform_soup")([copied], weights=[scale], normalize=False)
        method = function(first.method)
        names = inspect.signature(method).parameters
        options = dict(first.options)
        pick = options.pop("task", None)
        inputs: dict[str, Any] = {} if first.base is None else {"base": self._tensors(job, [t.base for t in job])}
        models = [self._tensors(job, sources) for sources in zip(*(task.models for task in job))]
        if "model_a" in names:
            inputs |= {"model_a": models[0], "model_b": models[1]}
        else:
            inputs["finetuned" if "finetuned" in names else "models"] = models
        if "generator" in names:
            inputs["generator"] = torch.Generator().manual_seed(self.recipe.seed)
        if "spec" in options:
            return align(first.method, inputs, options)
        merged = method(**inputs, **options)
        return merged if pick is None else merged.model(pick)

    def write(self, task: Task, merged: dict[str, Tensor | Streamed]) -> None:
        """Compute the blocks of a tensor and write them."""
        tensor, like = merged[task.name], self.recipe.like(task).dtype
        dtype = task.dtype if like.is_floating_point else like
        for start, stop in ranges(tensor.shape):
            if self.stop.is_set():
                return
            self.output.write(task.name, start, block_of(tensor, start, stop, {}).to(dtype))

    def _tensors(self, job: Sequence[Task], sources: Sequence[Source]) -> dict[str, Tensor | Streamed]:
        """One model of a job, by the names of the output."""
        way, joint = streaming(job[0].method).way, len(job) > 1 or is_joint(job[0].method, job[0].options)
        out: dict[str, Tensor | Streamed] = {}
        for task, source in zip(job, sources):
            size = 4 * prod(self.recipe.like(task).shape) * (len(task.models) + 1)
            stored = self._stored(task, task.dtype, source, keep=not joint and size <= KEEP / self.workers)
            out[task.name] = stored.to(task.dtype).materialize() if way in ("matrix", "model") else stored
        return out

    def _stored(self, task: Task, dtype: torch.dtype, source: Source, keep: bool) -> Stored:
        """A tensor of a file, for methods of the dtype of the output: what is stored otherwise is read as at least float32."""
        checkpoint, entry = self.recipe.checkpoints[source.checkpoint], self.recipe.entry(source)
        wide = torch.promote_types(dtype, torch.float32)
        sound: set[tuple[int, int]] = set()  # what has been read, and holds no NaN

        def read(start: int, stop: int) -> Tensor:
            if self.stop.is_set():
                raise InterruptedError("another tensor failed, or the run was interrupted")
            block = checkpoint.read(source.tensor, start, stop, checked=(start, stop) in sound).to(self.device)
            sound.add((start, stop))
            return block if block.dtype == dtype else block.to(wide)

        return Stored(read, entry.shape, dtype, self.device, keep)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """One thread of torch's in each of ours, and memory that isn't handed back to the system after every block."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with suppress(AttributeError, OSError):  # of the GNU C library; its defaults cost a tenth of the time
        libc = ctypes.CDLL(None)
        libc.mallopt(MMAP_THRESHOLD, 32 * 2**20)
        libc.mallopt(TRIM_THRESHOLD, 512 * 2**20)
    try:
        yield
    finally:
        torch.set_num_threads(before)
