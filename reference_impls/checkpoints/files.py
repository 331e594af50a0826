"""Safetensors files, read so that no file can do harm.

Checkpoints come from strangers: what a header or an index claims is checked before memory is taken for it, nothing is unpickled,
nothing outside the folder is opened, and what is wrong becomes a `CheckpointError` of one line.

Tensors are read by `pread`, whole or in blocks, into buffers that the caller may reuse: any number of threads can read at once,
and memory doesn't grow with the model.
"""

from __future__ import annotations

import json
import os
import stat
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reference_impls.checkpoints.errors import CheckpointError, quoted
from reference_impls.checkpoints.header import Entry, header_length, parse_header

MAX_JSON = 32_000_000  # bytes of an index or a config
MAX_DEPTH = 50  # levels in it

PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
CONVERT = (
    "pickled files can run code when they are loaded; convert it with "
    "safetensors.torch.save_file(torch.load(FILE, map_location='cpu', weights_only=True), 'model.safetensors')"
)


class Checkpoint(Mapping[str, Entry]):
    """A model on disk, as a mapping from the names of its tensors to where they are.

    Attributes:
        path: the folder or file that was opened.
        files: the safetensors files, in the order of the index.
        config: what config.json holds, None where there is none.
        metadata: the `__metadata__` of the files.
        allow_nonfinite: read tensors that hold NaN or infinity; they are refused otherwise.
    """

    def __init__(self, path: Path, files: Mapping[Path, int], entries: Mapping[str, Entry], config: dict | None = None,
                 metadata: Mapping[str, str] | None = None, allow_nonfinite: bool = False) -> None:  # fmt: skip
        self.path, self.config, self.allow_nonfinite = path, config, allow_nonfinite
        self.files = tuple(files)
        self.metadata = dict(metadata or {})
        self._descriptors, self._entries = dict(files), dict(entries)
        self.close = weakref.finalize(self, _close, self._descriptors)

    @classmethod
    def open(cls, path: str | Path, allow_nonfinite: bool = False) -> Checkpoint:
        """Open a folder (one safetensors file, or an index and its shards) or one safetensors file.

        Raises:
            CheckpointError: for anything that isn't a sound checkpoint.
        """
        path = Path(path)
        try:
            return cls._open(path, allow_nonfinite)
        except OSError as error:
            raise CheckpointError(f"{error.filename or path}: can't be read ({error.strerror})") from None

    @classmethod
    def _open(cls, path: Path, allow_nonfinite: bool) -> Checkpoint:
        folder, names, index = _find(path)
        files: dict[Path, int] = {}
        entries: dict[str, Entry] = {}
        metadata: dict[str, str] = {}
        try:
            for name in names:
                file = folder / name
                files[file] = _open_inside(file, folder if path.is_dir() else None)
                found, said = _read_header(files[file], file)
                metadata = said | metadata
                for key, entry in found.items():
                    if key in entries:
                        other = entries[key].file.name
                        raise CheckpointError(f"{file}: tensor {quoted(key)} is in {other} too; each belongs in one file")
                    entries[key] = entry
            if index is not None:
                entries = _as_indexed(entries, folder, index)
            config = read_json(folder / "config.json") if path.is_dir() and "config.json" in os.listdir(path) else None
        except BaseException:
            _close(files)
            raise
        return cls(path, files, entries, config, metadata, allow_nonfinite)

    def __getitem__(self, name: str) -> Entry:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(
        self, name: str, start: int = 0, stop: int | None = None, out: Tensor | None = None, checked: bool = False
    ) -> Tensor:
        """Return the entries from `start` up to `stop` of a tensor laid out flat, in the stored dtype.

        Args:
            name: of the tensor.
            start: first entry.
            stop: one past the last. Default None: to the end.
            out: a contiguous tensor of the stored dtype with room for them; they become its beginning. Default None: a new one.
            checked: they have been read before, so that NaN and infinity needn't be looked for again.

        Raises:
            CheckpointError: the file ends too early, or there is NaN or infinity among the entries.
        """
        entry = self._entries[name]
        stop = entry.numel if stop is None else stop
        if not 0 <= start <= stop <= entry.numel:
            raise ValueError(f"entries {start} to {stop} of {name!r}, which has {entry.numel}")
        if entry.file not in self._descriptors:
            raise ValueError(f"{self.path} has been closed")
        block = torch.empty(stop - start, dtype=entry.dtype) if out is None else out.view(-1)[: stop - start]
        if block.dtype != entry.dtype or block.numel() != stop - start:
            raise ValueError(f"{stop - start} entries of {entry.dtype} don't fit in {tuple(out.shape)} of {out.dtype}")
        place = entry.start + start * entry.dtype.itemsize
        try:
            _fill(self._descriptors[entry.file], memoryview(block.view(torch.uint8).numpy()), place)
        except EOFError:
            raise CheckpointError(f"{entry.file}: tensor {quoted(name)} was cut off while it was read") from None
        except OSError as error:
            raise CheckpointError(f"{entry.file}: tensor {quoted(name)} can't be read ({error.strerror})") from None
        if not self.allow_nonfinite and not checked:
            check_finite(block, entry, start)
        return block

    def tensor(self, name: str) -> Tensor:
        """Return a whole tensor in its shape."""
        return self.read(name).reshape(self._entries[name].shape)

    def state_dict(self) -> dict[str, Tensor]:
        """Return all tensors: the model in memory."""
        return {name: self.tensor(name) for name in self}


def check_finite(block: Tensor, entry: Entry, start: int = 0) -> None:
    """Refuse NaN and infinity in a block of a tensor, with the place of the first.

    The sum of a block is finite only if all its entries are, and takes a fiftieth of the time of looking at each.
    """
    if not block.is_floating_point() or isfinite(block.sum(dtype=torch.float32 if block.dtype == torch.float16 else None).item()):
        return
    wrong = block.isfinite().logical_not().nonzero()
    if len(wrong):  # else: finite entries with a sum out of range
        place = int(wrong[0])
        index = _unravel(start + place, entry.shape)
        raise CheckpointError(
            f"{entry.file}: tensor {quoted(entry.name)} holds {block[place].item()} at {index}; only finite weights can be merged"
        )


def read_json(file: Path, limit: int = MAX_JSON) -> dict[str, Any]:
    """Return the JSON object in a file of a checkpoint's folder, of at most `limit` bytes.

    Raises:
        CheckpointError: too long, no JSON, no object, or a key twice in one object.
    """
    return parse_json(read_bytes(file, limit), file)


def read_bytes(file: Path, limit: int = MAX_JSON) -> bytes:
    """Return what a file of a checkpoint's folder holds, at most `limit` bytes."""
    try:
        with open(_open_inside(file, file.parent), "rb") as stream:
            text = stream.read(limit + 1)
    except OSError as error:
        raise CheckpointError(f"{file}: can't be read ({error.strerror})") from None
    if len(text) > limit:
        raise CheckpointError(f"{file}: is longer than {limit} bytes")
    return text


def parse_json(text: bytes, file: Path) -> dict[str, Any]:
    """Return the JSON object that `text` is, refusing keys that stand twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) < len(pairs):
            twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
            raise CheckpointError(f"{file}: {quoted(twice)} is twice in one object")
        return members

    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except CheckpointError:
        raise
    except RecursionError:
        raise CheckpointError(f"{file}: is nested too deeply") from None
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError, a number of thousands of digits
        raise CheckpointError(f"{file}: is no JSON ({error})") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{file}: holds {type(value).__name__}; a JSON object is needed")
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        members = (x for holder in level for x in (holder.values() if isinstance(holder, dict) else holder))
        level = [x for x in members if isinstance(x, dict | list)]
    if level:  # not even comparing or printing it would be safe
        raise CheckpointError(f"{file}: is nested too deeply; {MAX_DEPTH} levels are read")
    return value


def parse_index(index: Mapping[str, Any], file: Path) -> dict[str, str]:
    """Return tensor name -> file name of a shard, from an index; every shard is a plain name beside the index."""
    shards = index.get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise CheckpointError(f"{file}: needs a weight_map from tensors to files")
    for name, shard in shards.items():
        if not isinstance(shard, str) or not shard.endswith(".safetensors") or shard != os.path.basename(shard) or "\0" in shard:
            raise CheckpointError(
                f"{file}: tensor {quoted(name)} is said to be in {quoted(shard)}; a shard is a .safetensors file beside the index"
            )
    return shards


def _find(path: Path) -> tuple[Path, list[str], dict[str, str] | None]:
    """Return the folder, its safetensors files in order, and the shard of each tensor where there is an index."""
    if path.suffix in PICKLED:
        raise CheckpointError(f"{path}: {CONVERT}")
    if not path.is_dir():
        if not path.exists():
            raise CheckpointError(f"{path}: doesn't exist; a local folder or a .safetensors file is needed")
        if path.suffix != ".safetensors":
            raise CheckpointError(f"{path}: is no .safetensors file")
        return path.parent, [path.name], None
    names = sorted(os.listdir(path))
    indices = [name for name in names if name.endswith(".safetensors.index.json")]
    files = [name for name in names if name.endswith(".safetensors")]
    if "adapter_config.json" in names:
        raise CheckpointError(f"{path}: is a LoRA adapter, not a model; merge it into its base first")
    if len(indices) == 1:
        if (whole := indices[0].removesuffix(".index.json")) in files:
            raise CheckpointError(f"{path}: holds both {whole} and {indices[0]}; remove the one that is out of date")
        index = parse_index(read_json(path / indices[0]), path / indices[0])
        return path, list(dict.fromkeys(index.values())), index
    if not indices and len(files) == 1:
        return path, files, None
    if "model.safetensors" in files and not indices:
        return path, ["model.safetensors"], None
    if files:
        what = f"{len(indices)} indices" if indices else f"{len(files)} safetensors files without an index"
        raise CheckpointError(f"{path}: holds {what}; one model.safetensors or one index is needed")
    pickled = next((name for name in names if name.endswith(PICKLED)), None)
    raise CheckpointError(f"{path / pickled}: {CONVERT}" if pickled else f"{path}: holds no .safetensors file")


def check_inside(file: Path, folder: Path) -> None:
    """Refuse a file that is a link out of its folder."""
    place = Path(os.path.realpath(file))
    if not place.is_relative_to(os.path.realpath(folder)):
        raise CheckpointError(f"{file}: leads out of its folder, to {place}; copy the folder with links followed (cp -rL)")


def _open_inside(file: Path, folder: Path | None) -> int:
    """Open a regular file, which must not lead out of `folder`; return its descriptor."""
    if folder is not None:
        check_inside(file, folder)
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # of a pipe, there is nothing to wait for
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise CheckpointError(f"{file}: is no regular file")
    return descriptor


def _read_header(descriptor: int, file: Path) -> tuple[dict[str, Entry], dict[str, str]]:
    size = os.fstat(descriptor).st_size
    length = header_length(os.pread(descriptor, 8, 0), size, file)
    header = os.pread(descriptor, length, 8)
    if len(header) < length:
        raise CheckpointError(f"{file}: was cut off while it was read")
    return parse_header(header, size, file)


def _fill(descriptor: int, buffer: memoryview, place: int) -> None:
    """Read into the whole buffer; the system may hand over less at a time (2 GB at most)."""
    while buffer:
        count = os.preadv(descriptor, [buffer], place)
        if count == 0:
            raise EOFError
        buffer, place = buffer[count:], place + count


def _close(descriptors: dict[Path, int]) -> None:
    while descriptors:
        os.close(descriptors.popitem()[1])


def _as_indexed(entries: dict[str, Entry], folder: Path, index: Mapping[str, str]) -> dict[str, Entry]:
    """Return the tensors in the order of the index, which must name each and its file."""
    for name, shard in index.items():
        if name not in entries or entries[name].file.name != shard:
            raise CheckpointError(f"{folder / shard}: lacks tensor {quoted(name)}, which the index places there")
    for name, entry in entries.items():
        if name not in index:
            raise CheckpointError(f"{entry.file}: tensor {quoted(name)} isn't in the index")
    return {name: entries[name] for name in index}


def _unravel(place: int, shape: tuple[int, ...]) -> list[int]:
    """Return the index of entry number `place` of a tensor laid out flat."""
    index = []
    for n in reversed(shape):
        place, i = divmod(place, n)
        index.append(i)
    return index[::-1]
