"""An output in storage that is no folder: `s3://bucket/model`, or whatever else fsspec reaches.

It is made file by file: computed here or by a worker into a temporary file, sent to a hidden place beside its name, and moved
when all files are there. Its index, or its only file, is moved last, so that nobody finds half a checkpoint. Storage of this kind
has no exchange of names: an output that is replaced is away while the new one is moved.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from reference_impls.checkpoints import cluster
from reference_impls.checkpoints.errors import CheckpointError
from reference_impls.checkpoints.recipe import Recipe, Task
from reference_impls.checkpoints.remote import connect, said
from reference_impls.checkpoints.request import Request, open_model
from reference_impls.checkpoints.streaming import jobs
from reference_impls.checkpoints.streaming import run as carry_out
from reference_impls.checkpoints.writing import Places, Shard, Tensors, index_file


class Destination:
    """An output in a storage, under construction.

    Attributes:
        url: where it is to be.
        hidden: where its files are until all are there.
        left: the files that are still to be made.
    """

    def __init__(self, url: str, shards: Sequence[Shard], identity: str, force: bool, resume: bool) -> None:
        self.url, self.shards = url.rstrip("/"), shards
        head, _, name = self.url.rpartition("/")
        self.hidden = f"{head}/.{name}.partial"
        (self.storage, self.root), self.beside = connect(self.url), connect(self.hidden)[1]
        with said(url):
            mark = f"{self.beside}/identity"
            begun = self.storage.exists(mark)
            if self.storage.exists(self.root) and not force and not (begun and resume):  # stopped while files were moved
                raise CheckpointError(f"{url}: exists; --force replaces it when the new one is complete")
            if begun:
                if not resume and not force:
                    ways = "--resume goes on with it, --force begins anew"
                    raise CheckpointError(f"{self.hidden}: left by an interrupted run; {ways}")
                if resume and self.storage.cat_file(mark).decode() != identity:
                    what = "other inputs, another recipe or other versions"
                    raise CheckpointError(f"{self.hidden}: left by a run with {what}; --force begins anew")
            if begun and not resume:
                self.storage.rm(self.beside, recursive=True)
            self.storage.makedirs(self.beside, exist_ok=True)
            self.storage.pipe_file(mark, identity.encode())
            sizes = {os.path.basename(file["name"]): file["size"] for file in self.storage.ls(self.beside, detail=True)}
        self.left = [shard for shard in shards if sizes.get(shard.name) != shard.size]

    def publish(self, files: Mapping[str, bytes], tensors: Tensors) -> None:
        """Give all files their names, the one by which a checkpoint is found last."""
        with said(self.url):
            if self.storage.exists(self.root):
                self.storage.rm(self.root, recursive=True)
            self.storage.makedirs(self.root, exist_ok=True)
            for name, content in files.items():
                self.storage.pipe_file(f"{self.root}/{name}", content)
            for shard in self.shards:
                self.storage.mv(f"{self.beside}/{shard.name}", f"{self.root}/{shard.name}")
            for name, content in index_file(self.shards, tensors).items():
                self.storage.pipe_file(f"{self.root}/{name}", content)
            self.storage.rm(self.beside, recursive=True)


def seen(recipe: Recipe, shard: Shard) -> tuple[tuple[Task, ...], frozenset[str]]:
    """Return the tasks that must be seen for a file, and the names of those whose tensors are in it."""
    names = frozenset(recipe.ties.get(name, name) for name in shard.starts)
    return tuple(task for job in jobs(recipe) if any(task.name in names for task in job) for task in job), names


def produce(
    request: Request,
    destination: Destination,
    *,
    workers: int,
    device: str,
    dask: str | None,
    progress: Callable[[int], None] | None,
) -> None:
    """Make the files of an output that are left, here or on a cluster."""
    recipe, models = request.recipe, [cluster.absolute(name) for name in request.models]
    common = (recipe.ties, models, recipe.seed, request.tensors, destination.hidden)
    calls = [(shard, *seen(recipe, shard), *common) for shard in destination.left]
    if dask is None:
        for call in calls:
            make(*call, workers, device, progress)
        return
    sizes = {task.name: recipe.like(task).numel for task in recipe.tasks}

    def done(number: int) -> None:
        if progress is not None:
            progress(sum(sizes[name] for name in calls[number][2]))

    with cluster.connected(dask) as client:
        cluster.spread(client, make, [(*call, 1, device) for call in calls], done)


def make(
    shard: Shard,
    tasks: Sequence[Task],
    names: frozenset[str],
    ties: Mapping[str, str],
    models: Sequence[str],
    seed: int,
    tensors: Tensors,
    hidden: str,
    workers: int,
    device: str,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Compute one file of an output and send it; the models are opened by their names."""
    checkpoints = [open_model(name) for name in models]
    recipe = Recipe(tuple(checkpoints), tuple(tasks), {}, seed)
    storage, root = connect(hidden)
    with tempfile.TemporaryDirectory(prefix="checkpoints-") as folder:
        file = Path(folder) / shard.name
        file.write_bytes(shard.header)
        descriptor = os.open(file, os.O_RDWR)
        try:
            os.ftruncate(descriptor, shard.size)
            places: Any = _Copies(tensors, shard, descriptor, ties)
            wanted = [task for task in tasks if task.name in names]
            carry_out(recipe, places, tasks=wanted, workers=workers, device=device, progress=progress)
        finally:
            os.close(descriptor)
            for checkpoint in checkpoints:
                checkpoint.close()
        with said(hidden):
            storage.put_file(str(file), f"{root}/{shard.name}")


class _Copies(Places):
    """The places of one file; what is tied to a tensor is written with it."""

    def __init__(self, tensors: Tensors, shard: Shard, descriptor: int, ties: Mapping[str, str]) -> None:
        super().__init__(tensors, [shard], [descriptor])
        self.copies = {name: [name, *(tied for tied, owner in ties.items() if owner == name)] for name in tensors}

    def write(self, name: str, start: int, block: Tensor) -> None:
        for copy in self.copies[name]:
            if copy in self.place:
                super().write(copy, start, block)

    def finish(self, name: str) -> None:
        """Nothing: the file is sent when it is whole."""
