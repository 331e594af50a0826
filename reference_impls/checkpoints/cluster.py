"""Spread a merge over the workers of a Dask cluster, which see the same folders as the process that asks.

The output's files are made here, with their headers; each worker opens the models and writes its tensors to their places. What a
worker has brought to the disk enters the journal here. If a worker dies, Dask gives its parts to another one, which writes the
same bytes once more: what becomes of a tensor depends on the recipe alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reference_impls.checkpoints.errors import CheckpointError
from reference_impls.checkpoints.methods import is_joint
from reference_impls.checkpoints.recipe import Recipe, Task
from reference_impls.checkpoints.remote import is_remote
from reference_impls.checkpoints.request import open_model
from reference_impls.checkpoints.streaming import jobs
from reference_impls.checkpoints.streaming import run as carry_out
from reference_impls.checkpoints.writing import Output, Places, Shard, Tensors

PARTS = 4  # a worker; more are lost less by a worker that dies, fewer open the models less often
ATTEMPTS = 5  # at a part whose workers die


@dataclass(frozen=True)
class Part:
    """What one worker is given: all the tasks that must be seen, and the names of those that it writes."""

    tasks: tuple[Task, ...]
    names: frozenset[str]


def split(recipe: Recipe, names: Sequence[str], count: int) -> list[Part]:
    """Share out the tensors to be written into about `count` parts of like size.

    Where a number belongs to the whole model, each of its parts sees all tensors and writes some.
    """
    wanted, parts, singles = set(names), [], []
    for job in jobs(recipe):
        left = [task for task in job if task.name in wanted]
        if len(job) == 1 and not is_joint(job[0].method, job[0].options):
            singles += left
        else:
            parts += [Part(tuple(job), frozenset(task.name for task in group)) for group in _groups(recipe, left, count)]
    return parts + [Part(tuple(group), frozenset(task.name for task in group)) for group in _groups(recipe, singles, count)]


def _groups(recipe: Recipe, tasks: Sequence[Task], count: int) -> list[list[Task]]:
    """The largest first, each to the group that has least."""
    groups: list[list[Task]] = [[] for _ in range(min(count, len(tasks)))]
    sizes = [0] * len(groups)
    for task in sorted(tasks, key=lambda task: -recipe.like(task).numel):
        smallest = sizes.index(min(sizes))
        groups[smallest].append(task)
        sizes[smallest] += recipe.like(task).numel + 1
    return groups


def run(
    address: str,
    recipe: Recipe,
    models: Sequence[str],
    output: Output,
    *,
    tasks: Sequence[Task],
    device: str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> None:
    """Compute tensors of a recipe on a cluster; the arguments are those of `streaming.run`.

    Args:
        address: of the scheduler, such as tcp://host:8786.
        models: the names under which the recipe's checkpoints are opened.

    Raises:
        CheckpointError: as `streaming.run`, or distributed is missing.
        OSError: the cluster can't be reached, or its workers keep dying.
    """
    sizes = {task.name: recipe.like(task).numel for task in recipe.tasks}
    with connected(address) as client:
        parts = split(recipe, [task.name for task in tasks], PARTS * len(client.scheduler_info(n_workers=-1)["workers"]))
        common = ([absolute(name) for name in models], recipe.seed, str(output.folder), output.shards, output.tensors, device)

        def done(number: int) -> None:
            for name in parts[number].names:
                output.finish(name)
                if progress is not None:
                    progress(sizes[name])

        spread(client, work, [(part, *common) for part in parts], done)


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Yield a client of the scheduler at an address, which has a worker at least."""
    try:
        from distributed import Client
    except ImportError:
        raise CheckpointError('--dask needs distributed: pip install "model-fusion-atlas[dask]"') from None
    try:
        client = Client(address, set_as_default=False)
    except ValueError as error:
        raise CheckpointError(f"--dask {address}: {error}") from None
    with client:
        client.wait_for_workers(1, timeout=60)
        yield client


def spread(client: Any, function: Callable[..., None], calls: Sequence[tuple], done: Callable[[int], None]) -> None:
    """Make calls on the workers, and say of each when it is done; a call whose worker dies is made once more elsewhere."""
    from distributed import KilledWorker, as_completed

    futures = {client.submit(function, *call, pure=False, retries=ATTEMPTS): number for number, call in enumerate(calls)}
    try:
        for future in as_completed(futures, loop=client.loop):
            if future.status in ("error", "cancelled"):
                future.result()  # raises what happened
            done(futures[future])
            future.release()  # what it did stays, should its worker die now
    except KilledWorker as error:
        raise OSError(f"the cluster's workers keep dying: {error}") from None
    finally:
        client.cancel(list(futures))


def absolute(name: str) -> str:
    """Return a model's name with its paths from the root, as a worker may stand in another folder."""
    parts = [name] if Path(name).exists() else name.split("+")
    return "+".join(part if is_remote(part) else os.path.abspath(part) for part in parts)


def work(
    part: Part, models: Sequence[str], seed: int, folder: str, shards: Sequence[Shard], tensors: Tensors, device: str
) -> None:
    """Compute a part on a worker and bring it to the disk."""
    checkpoints = [open_model(name) for name in models]
    recipe = Recipe(tuple(checkpoints), part.tasks, {}, seed)
    files = [os.open(Path(folder) / shard.name, os.O_WRONLY) for shard in shards]
    try:
        places: Any = _Places(tensors, shards, files)
        carry_out(recipe, places, tasks=[task for task in part.tasks if task.name in part.names], device=device)
        for descriptor in files:
            os.fsync(descriptor)
    finally:
        for descriptor in files:
            os.close(descriptor)
        for checkpoint in checkpoints:
            checkpoint.close()


class _Places(Places):
    def finish(self, name: str) -> None:
        """Nothing yet: the whole part is brought to the disk at once."""
