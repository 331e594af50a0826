"""An output folder that nobody ever finds half written.

All dtypes and shapes are known before the first number is, so the headers of the files are written first and every block of
every tensor then goes to its place, in any order and from any thread. The folder is built beside its final name, under a hidden
one; when everything is in it and on the disk, it takes its name by a rename, which either happens or doesn't. A process that is
killed or a full disk leave the hidden folder behind, with a journal of the tensors that are safely on the disk; a run with
`resume` computes the others.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import math
import os
import queue
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from reference_impls.checkpoints.errors import CheckpointError
from reference_impls.checkpoints.header import DTYPES

SHARD_SIZE = 5_000_000_000  # bytes in one file
COPY = 1 << 20  # bytes at a time
JOURNAL = ".journal"
SYNC_EVERY = 1.0  # seconds between two entries in the journal
ENDING = 1.0  # seconds that the processes of a killed run may take to end with it

_NAMES = {dtype: name for name, dtype in DTYPES.items()}

Tensors = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]


@dataclass(frozen=True)
class Shard:
    """One file of the output: its name, its header with the eight bytes before it, where each tensor begins, and its size."""

    name: str
    header: bytes
    starts: Mapping[str, int]
    size: int


def layout(tensors: Tensors, shard_size: int = SHARD_SIZE, stem: str = "model") -> list[Shard]:
    """Spread tensors over files in the order given, each as full as `shard_size` bytes of tensors allow.

    Example:
        >>> shards = layout({"a": (torch.float32, (2,)), "b": (torch.float32, (3,))}, shard_size=16)
        >>> [(shard.name, list(shard.starts), shard.size) for shard in shards]
        [('model-00001-of-00002.safetensors', ['a'], 104), ('model-00002-of-00002.safetensors', ['b'], 108)]
    """
    groups: list[list[str]] = [[]]
    filled = 0
    for name, (dtype, shape) in tensors.items():
        size = math.prod(shape) * dtype.itemsize
        if filled + size > shard_size and groups[-1]:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += size
    if len(groups) == 1:
        return [_shard(f"{stem}.safetensors", groups[0], tensors)]
    return [_shard(f"{stem}-{i:05}-of-{len(groups):05}.safetensors", names, tensors) for i, names in enumerate(groups, 1)]


def _shard(file: str, names: list[str], tensors: Tensors) -> Shard:
    names = sorted(names, key=lambda name: -tensors[name][0].itemsize)  # wide dtypes first: every tensor is aligned to its own
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offsets, end = {}, 0
    for name in names:
        dtype, shape = tensors[name]
        offsets[name], end = end, end + math.prod(shape) * dtype.itemsize
        entries[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [offsets[name], end]}
    header = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)
    header = len(header).to_bytes(8, "little") + header
    return Shard(file, header, {name: len(header) + offset for name, offset in offsets.items()}, len(header) + end)


def index_file(shards: Sequence[Shard], tensors: Tensors, stem: str = "model") -> dict[str, bytes]:
    """Return the index that says in which file each tensor is, by its name; nothing where there is one file."""
    if len(shards) == 1:
        return {}
    files = {name: shard.name for shard in shards for name in shard.starts}
    size = sum(math.prod(shape) * dtype.itemsize for dtype, shape in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": {name: files[name] for name in tensors}}
    return {f"{stem}.safetensors.index.json": json.dumps(index, indent=2, ensure_ascii=False).encode() + b"\n"}


class Places:
    """The files of an output, open, with the place of every tensor in them. Any number of threads may write."""

    def __init__(self, tensors: Tensors, shards: Sequence[Shard], files: list[int]) -> None:
        self.tensors, self.shards, self.files = dict(tensors), list(shards), files
        self.place = {name: (number, start) for number, shard in enumerate(shards) for name, start in shard.starts.items()}

    def write(self, name: str, start: int, block: Tensor) -> None:
        """Write a block of a tensor, laid out flat, from its entry `start` on."""
        dtype, shape = self.tensors[name]
        number, place = self.place[name]
        if block.dtype != dtype or not 0 <= start <= start + block.numel() <= math.prod(shape):
            what = f"{block.numel()} entries of {block.dtype} from {start} on"
            raise ValueError(f"{what} don't fit {name!r}, {tuple(shape)} of {dtype}")
        flat = block.detach().cpu().contiguous().reshape(-1)
        _write_all(self.files[number], memoryview(flat.view(torch.uint8).numpy()), place + start * dtype.itemsize)


class Output(Places):
    """A checkpoint under construction. `write` and `finish` may be called from any thread.

    Attributes:
        path: the name that the folder gets when it is complete.
        done: the tensors that an interrupted run has left complete; they need not be written again.
    """

    def __init__(
        self,
        path: Path,
        tensors: Tensors,
        *,
        identity: str = "",
        shard_size: int = SHARD_SIZE,
        stem: str = "model",
        force: bool = False,
        resume: bool = False,
    ) -> None:
        """Begin an output, or go on with one.

        Args:
            path: where the checkpoint is to be. Nothing may be there yet, unless `force` is set.
            tensors: dtype and shape of every tensor, in the order of the files.
            identity: stands for all that decides the content; only a run with the same one may go on with an interrupted run.
            shard_size: most bytes of tensors in one file.
            stem: how the files' names begin; those of an adapter begin otherwise than a model's.
            force: replace what is at `path`, once the new one is complete; forget an interrupted run.
            resume: go on with an interrupted run, if there is one.

        Raises:
            CheckpointError: something is at `path`, another run is writing there, or an interrupted one is in the way.
            OSError: the disk refuses or is too small.
        """
        self.path = Path(os.path.abspath(path))
        super().__init__(tensors, layout(tensors, shard_size, stem), [])
        self._stem = stem
        self.folder = self.path.with_name(f".{self.path.name}.partial")
        identified = {"identity": identity, "files": {shard.name: shard.size for shard in self.shards}}
        self._identity = json.dumps(identified).encode()
        self._journal = -1
        self._recorded: set[str] = set()
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._recorder: threading.Thread | None = None
        self._closing = threading.Event()
        self._failure: BaseException | None = None
        self._ours = False  # whether the hidden folder may be removed
        self.complete = resume and self._only_to_tidy()
        if not self.complete:
            try:
                self._begin(force, resume)
            except BaseException:
                self.close()
                raise
        self.done = frozenset(self.tensors if self.complete else self._recorded)

    # --- writing -------------------------------------------------------------------------------------------------

    def write(self, name: str, start: int, block: Tensor) -> None:
        self._check()
        super().write(name, start, block)

    def finish(self, name: str) -> None:
        """Say that all of a tensor has been written. It enters the journal when it is on the disk."""
        self._check()
        self._queue.put(name)

    def copy(self, source: str, name: str) -> None:
        """Write a tensor that is tied to another, which is complete: the same bytes."""
        size = math.prod(self.tensors[name][1]) * self.tensors[name][0].itemsize
        (read_from, start), (write_to, place) = self.place[source], self.place[name]
        for offset in range(0, size, COPY):
            block = os.pread(self.files[read_from], min(COPY, size - offset), start + offset)
            _write_all(self.files[write_to], memoryview(block), place + offset)
        self.finish(name)

    def publish(self, files: Mapping[str, bytes] | None = None) -> None:
        """Add the other files, bring everything to the disk and give the folder its name."""
        if not self.complete:
            self._stop_recorder()
            self._check()
            if missing := sorted(self.tensors.keys() - self._recorded):
                raise RuntimeError(f"{len(missing)} tensors were never finished, {missing[0]!r} first")
            for name, content in {**index_file(self.shards, self.tensors, self._stem), **(files or {})}.items():
                _write_file(self.folder / name, content)
            for descriptor in self.files:
                os.fsync(descriptor)
            _sync_folder(self.folder)
            self._rename()
            self.complete = True
        self._tidy()

    def close(self) -> None:
        """Let go of the files. What has been written stays for a later run, unless no tensor is complete."""
        self._stop_recorder()
        for descriptor in self.files:
            os.close(descriptor)
        self.files = []
        if self._ours and not self.complete and not self._recorded:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._unlock()

    def __enter__(self) -> Output:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- the hidden folder and its journal -----------------------------------------------------------------------

    def _begin(self, force: bool, resume: bool) -> None:
        """Make the hidden folder, or take over the one that an interrupted run has left."""
        if self.path.is_symlink() or (self.path.exists() and not self.path.is_dir()):
            raise CheckpointError(f"{self.path}: is not a folder; the output needs a name of its own")
        if self.path.exists() and any(self.path.iterdir()) and not force:
            raise CheckpointError(f"{self.path}: exists; --force replaces it when the new one is complete")
        if (self.folder / JOURNAL).exists():
            self._lock()
            if not force and not resume:
                raise CheckpointError(f"{self.folder}: left by an interrupted run; --resume goes on with it, --force begins anew")
            if resume:
                self._recorded = self._read_journal()
        if not self._recorded:
            self._unlock()
            if self.folder.exists():
                shutil.rmtree(self.folder)
            self.folder.mkdir(parents=True)
            _write_file(self.folder / JOURNAL, self._identity + b"\n")
            self._lock()
        self._ours = True
        self._check_space()
        for shard in self.shards:
            self.files.append(os.open(self.folder / shard.name, os.O_RDWR | os.O_CREAT, 0o644))
            _write_all(self.files[-1], memoryview(shard.header), 0)
            os.ftruncate(self.files[-1], shard.size)
        _sync_folder(self.folder)
        _sync_folder(self.folder.parent)
        self._recorder = threading.Thread(target=self._record, name="journal", daemon=True)
        self._recorder.start()

    def _lock(self) -> None:
        self._journal = os.open(self.folder / JOURNAL, os.O_RDWR | os.O_APPEND)
        deadline = time.monotonic() + ENDING
        while True:
            try:
                return fcntl.flock(self._journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise CheckpointError(f"{self.folder}: another run is writing there; wait for it, or stop it") from None
                time.sleep(0.02)

    def _unlock(self) -> None:
        if self._journal >= 0:
            os.close(self._journal)
            self._journal = -1

    def _read_journal(self) -> set[str]:
        """The tensors that are complete and on the disk; a line that was cut off is cut off for good."""
        content = (self.folder / JOURNAL).read_bytes()
        head, *lines = content[: content.rfind(b"\n") + 1].split(b"\n")[:-1] or [b""]
        if head != self._identity:
            raise CheckpointError(
                f"{self.folder}: left by a run with other inputs, another recipe or other versions; --force begins anew"
            )
        os.ftruncate(self._journal, content.rfind(b"\n") + 1)
        names = {json.loads(line) for line in lines}
        for shard in self.shards:
            file = self.folder / shard.name
            if names & shard.starts.keys() and not (file.is_file() and file.stat().st_size == shard.size):
                raise CheckpointError(f"{file}: is not as the journal beside it says; --force begins anew")
        return names

    def _check_space(self) -> None:
        there = [self.folder / shard.name for shard in self.shards]
        needed = sum(shard.size for shard in self.shards) - sum(f.stat().st_blocks * 512 for f in there if f.exists())
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            amounts = f"needs {needed / 1e9:.3f} GB more, {free / 1e9:.3f} GB are free"
            raise OSError(errno.ENOSPC, f"No space left for the output: {amounts}", str(self.path))

    def _record(self) -> None:
        """In a thread of its own: bring finished tensors to the disk, then their names into the journal."""
        names: list[str | None] = []
        try:
            while None not in names:
                names = [self._queue.get()]
                while not self._queue.empty():
                    names.append(self._queue.get())
                finished = [name for name in names if name is not None]
                for number in sorted({self.place[name][0] for name in finished}):
                    os.fdatasync(self.files[number])
                os.write(self._journal, b"".join(json.dumps(name).encode() + b"\n" for name in finished))
                os.fdatasync(self._journal)
                self._recorded |= set(finished)
                self._closing.wait(SYNC_EVERY)
        except OSError as error:  # raised again in the thread that writes next
            self._failure = error

    def _stop_recorder(self) -> None:
        if self._recorder is not None:
            self._closing.set()
            self._queue.put(None)
            self._recorder.join()
            self._recorder = None

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    # --- the name ------------------------------------------------------------------------------------------------

    def _rename(self) -> None:
        """Give the folder its name. What was there before goes, in the same step where the system can exchange two names."""
        if self.path.exists() and any(self.path.iterdir()):
            (self.path / JOURNAL).unlink(missing_ok=True)
            if not _exchange(self.folder, self.path):
                os.rename(self.path, self._aside)
                os.rename(self.folder, self.path)
        else:
            os.rename(self.folder, self.path)
        _sync_folder(self.path.parent)

    @property
    def _aside(self) -> Path:
        return self.path.with_name(f".{self.path.name}.replaced")

    def _only_to_tidy(self) -> bool:
        """Whether an earlier run was stopped after the folder had got its name."""
        journal = self.path / JOURNAL
        return journal.is_file() and journal.read_bytes().partition(b"\n")[0] == self._identity

    def _tidy(self) -> None:
        for folder in (self.folder, self._aside):
            if folder.exists():
                shutil.rmtree(folder)
        (self.path / JOURNAL).unlink(missing_ok=True)


def _exchange(a: Path, b: Path) -> bool:
    """Exchange the names of two folders in one step; False where the system can't (it is Linux's renameat2)."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return call is not None and call(here, os.fsencode(a), here, os.fsencode(b), exchange) == 0


def _write_all(descriptor: int, data: memoryview, place: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, place)
        data, place = data[written:], place + written


def _write_file(file: Path, data: bytes) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        _write_all(descriptor, memoryview(data), 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
