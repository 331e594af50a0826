"""Safetensors files, read so that no file can do harm.

A safetensors file is eight bytes (the length of the header), the header (JSON: name -> dtype, shape, place) and the tensors'
bytes. Checkpoints come from strangers, so everything that a header claims is checked before memory is taken for it: each tensor
lies inside the file, its length is that of its shape and dtype, and together they fill the file without gap or overlap. Nothing is
unpickled, nothing outside the folder is opened, and what is wrong becomes a `CheckpointError` of one line.

Tensors are read by `pread`, whole or in blocks, into buffers that the caller may reuse: any number of threads can read at once,
and memory doesn't grow with the model.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reference_impls.checkpoints.errors import CheckpointError, quoted

DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "U16": torch.uint16, "I16": torch.int16,
    "U32": torch.uint32, "I32": torch.int32, "U64": torch.uint64, "I64": torch.int64,
    "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64,
}  # fmt: skip

MAX_HEADER = 100_000_000  # bytes, the format's own limit
MAX_TENSORS = 250_000  # in one file: twice what the largest models have in all their files together
MAX_JSON = 32_000_000  # bytes of an index or a config

PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
CONVERT = (
    "pickled files can run code when they are loaded; convert it with "
    "safetensors.torch.save_file(torch.load(FILE, map_location='cpu', weights_only=True), 'model.safetensors')"
)

_PAIRS = json.JSONDecoder(object_pairs_hook=list)
_SPACE = rb"[ \t\r\n]*"
_NAME = re.compile(_SPACE + rb'("(?:[^"\\]++|\\.)*+")' + _SPACE + rb":" + _SPACE, re.DOTALL)
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_OBJECT = re.compile(rb"\{[^{}]{0,4096}+\}")  # the entry of a tensor holds no other object
_NEXT = re.compile(_SPACE + rb"([,}])")
_OPEN = re.compile(_SPACE + rb"\{" + _SPACE + rb"(\}?)")


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor in a file, from the header alone."""

    name: str
    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int  # bytes, from the beginning of the file
    stop: int

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


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
        self.close = weakref.finalize(self, _close, list(files.values()))

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
                        raise CheckpointError(f"{file}: tensor {quoted(key)} is in {entries[key].file.name} too; each belongs in one file")
                    entries[key] = entry
            if index is not None:
                entries = _as_indexed(entries, folder, index)
            config = read_json(folder / "config.json") if path.is_dir() and "config.json" in os.listdir(path) else None
        except BaseException:
            _close(list(files.values()))
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

    def read(self, name: str, start: int = 0, stop: int | None = None, out: Tensor | None = None) -> Tensor:
        """Return the entries from `start` up to `stop` of a tensor laid out flat, in the stored dtype.

        Args:
            name: of the tensor.
            start: first entry.
            stop: one past the last. Default None: to the end.
            out: a contiguous tensor of the stored dtype with room for them; the result is its beginning. Default None: a new tensor.

        Raises:
            CheckpointError: the file ends too early, or there is NaN or infinity among the entries.
        """
        entry = self._entries[name]
        stop = entry.numel if stop is None else stop
        if not 0 <= start <= stop <= entry.numel:
            raise ValueError(f"entries {start} to {stop} of {name!r}, which has {entry.numel}")
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
        if not self.allow_nonfinite:
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
    if not block.is_floating_point() or block.sum(dtype=torch.float32 if block.dtype == torch.float16 else None).isfinite():
        return
    wrong = block.isfinite().logical_not().nonzero()
    if len(wrong):  # else: finite entries with a sum out of range
        place = int(wrong[0])
        index = _unravel(start + place, entry.shape)
        raise CheckpointError(
            f"{entry.file}: tensor {quoted(entry.name)} holds {block[place].item()} at {index}; only finite weights can be merged"
        )


def header_length(head: bytes, size: int, file: Path) -> int:
    """Return the length of the header from the first eight bytes of a file of `size` bytes."""
    if len(head) < 8:
        raise CheckpointError(f"{file}: has {size} bytes; a safetensors file has at least 8 and a header")
    length = int.from_bytes(head, "little")
    if length > MAX_HEADER:
        raise CheckpointError(f"{file}: announces a header of {length} bytes; the format allows {MAX_HEADER} (is it a safetensors file?)")
    if 8 + length > size:
        raise CheckpointError(f"{file}: announces a header of {length} bytes but has {size} in all; it is cut off or damaged")
    return length


def parse_header(header: bytes, size: int, file: Path) -> tuple[dict[str, Entry], dict[str, str]]:
    """Return the tensors and the metadata that a header lists, all checked against a file of `size` bytes.

    The header is read member by member: one that is made to swell in memory is refused at its first wrong byte.
    """

    def metadata_or_tensor(name: str, place: int) -> tuple[Any, int]:
        if name == "__metadata__":
            return _object(header, place, file, lambda name, place: _text(header, place, file, name))
        if (match := _OBJECT.match(header, place)) is None:
            raise CheckpointError(f"{file}: tensor {quoted(name)} needs an object of dtype, shape and data_offsets in the header")
        return _entry(name, match[0], 8 + len(header), size, file), match.end()

    members, end = _object(header, 0, file, metadata_or_tensor)
    if header[end:].strip(b" \t\r\n"):
        raise CheckpointError(f"{file}: the header goes on after its end, at byte {end}")
    metadata = members.pop("__metadata__", {})
    _check_layout(members.values(), 8 + len(header), size, file)
    return members, metadata


def read_json(file: Path, limit: int = MAX_JSON) -> dict[str, Any]:
    """Return the JSON object in a file of a checkpoint's folder, of at most `limit` bytes.

    Raises:
        CheckpointError: too long, no JSON, no object, or a key twice in one object.
    """
    try:
        with open(_open_inside(file, file.parent), "rb") as stream:
            text = stream.read(limit + 1)
    except OSError as error:
        raise CheckpointError(f"{file}: can't be read ({error.strerror})") from None
    if len(text) > limit:
        raise CheckpointError(f"{file}: is longer than {limit} bytes")
    return parse_json(text, file)


def parse_json(text: bytes, file: Path) -> dict[str, Any]:
    """Return the JSON object that `text` is, refusing keys that stand twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) < len(pairs):
            twice = next(key for number, (key, _) in enumerate(pairs) if key in dict(pairs[:number]))
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


def _open_inside(file: Path, folder: Path | None) -> int:
    """Open a regular file, which must not lead out of `folder`; return its descriptor."""
    if folder is not None and not (place := Path(os.path.realpath(file))).is_relative_to(os.path.realpath(folder)):
        raise CheckpointError(f"{file}: leads out of its folder, to {place}; copy the folder with links followed (cp -rL)")
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # of a pipe, there is nothing to wait for
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise CheckpointError(f"{file}: is no regular file")
    return descriptor


def _read_header(descriptor: int, file: Path) -> tuple[dict[str, Entry], dict[str, str]]:
    size = os.fstat(descriptor).st_size
    length = header_length(os.pread(descriptor, 8, 0), size, file)
    header = bytearray(length)
    try:
        _fill(descriptor, memoryview(header), 8)
    except EOFError:
        raise CheckpointError(f"{file}: was cut off while it was read") from None
    return parse_header(bytes(header), size, file)


def _fill(descriptor: int, buffer: memoryview, place: int) -> None:
    """Read into the whole buffer; the system may hand over less at a time (2 GB at most)."""
    while buffer:
        count = os.preadv(descriptor, [buffer], place)
        if count == 0:
            raise EOFError
        buffer, place = buffer[count:], place + count


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _as_indexed(entries: dict[str, Entry], folder: Path, index: Mapping[str, str]) -> dict[str, Entry]:
    """Return the tensors in the order of the index, which must name each and its file."""
    for name, shard in index.items():
        if name not in entries or entries[name].file.name != shard:
            raise CheckpointError(f"{folder / shard}: lacks tensor {quoted(name)}, which the index places there")
    for name, entry in entries.items():
        if name not in index:
            raise CheckpointError(f"{entry.file}: tensor {quoted(name)} isn't in the index")
    return {name: entries[name] for name in index}


def _object(text: bytes, place: int, file: Path, value: Callable[[str, int], tuple[Any, int]]) -> tuple[dict[str, Any], int]:
    """Read a JSON object from `place`, its values by `value(name, place)`, which returns one and the place after it."""
    wrong = f"{file}: the header is no JSON object of tensors, at byte "
    members: dict[str, Any] = {}
    if (match := _OPEN.match(text, place)) is None:
        raise CheckpointError(f"{wrong}{place}")
    if match[1]:
        return members, match.end()
    while match[1] != b"}":
        place = match.end()
        if (match := _NAME.match(text, place)) is None:
            raise CheckpointError(f"{wrong}{place}")
        name = _decoded(match[1], file)
        if name in members:
            raise CheckpointError(f"{file}: {quoted(name)} is twice in the header")
        if len(members) > MAX_TENSORS:
            raise CheckpointError(f"{file}: has more than {MAX_TENSORS} tensors; spread them over several files")
        members[name], place = value(name, match.end())
        if (match := _NEXT.match(text, place)) is None:
            raise CheckpointError(f"{wrong}{place}")
    return members, match.end()


def _text(header: bytes, place: int, file: Path, name: str) -> tuple[str, int]:
    if (match := _STRING.match(header, place)) is None:
        raise CheckpointError(f"{file}: {quoted(name)} in __metadata__ needs text as its value")
    return _decoded(match[0], file), match.end()


def _decoded(string: bytes, file: Path) -> str:
    """Return the text of a JSON string."""
    try:
        text = json.loads(string.decode("utf-8"))
        text.encode("utf-8")  # refuses half a surrogate pair
    except ValueError:
        raise CheckpointError(f"{file}: the header holds {quoted(string)[1:]}, which is no UTF-8 text in JSON") from None
    return text


def _entry(name: str, text: bytes, data: int, size: int, file: Path) -> Entry:
    """Return what a header says about one tensor, checked by itself."""
    tensor = f"{file}: tensor {quoted(name)}"
    try:
        pairs = _PAIRS.decode(text.decode("utf-8"))
        said = dict(pairs)
    except (ValueError, TypeError, RecursionError):
        raise CheckpointError(f"{tensor} has no JSON object in the header") from None
    if sorted(key for key, _ in pairs) != ["data_offsets", "dtype", "shape"]:
        raise CheckpointError(f"{tensor} has {quoted([key for key, _ in pairs])}; dtype, shape and data_offsets are needed, each once")
    code, shape, offsets = said["dtype"], said["shape"], said["data_offsets"]
    if not isinstance(code, str) or code not in DTYPES:
        raise CheckpointError(f"{tensor} has dtype {quoted(code)}; convert it to one of {', '.join(DTYPES)} first")
    if not _sizes(shape) or len(shape) > 64 or math.prod(n or 1 for n in shape) >= 2**63:
        raise CheckpointError(f"{tensor} has shape {quoted(shape)}; at most 64 sizes, not negative and below 2**63 together, are needed")
    if not _sizes(offsets) or len(offsets) != 2:
        raise CheckpointError(f"{tensor} has data_offsets {quoted(offsets)}; two whole numbers are needed")
    start, stop = offsets
    need = math.prod(shape) * DTYPES[code].itemsize
    if stop - start != need:
        raise CheckpointError(f"{tensor} has {stop - start} bytes by its data_offsets; {code} of shape {quoted(shape)} needs {need}")
    if data + stop > size:
        raise CheckpointError(f"{tensor} ends at byte {data + stop} of a file of {size}; the file is cut off or damaged")
    return Entry(name, file, DTYPES[code], tuple(shape), data + start, data + stop)


def _sizes(value: object) -> bool:
    return isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)


def _check_layout(entries: Iterable[Entry], place: int, size: int, file: Path) -> None:
    """Refuse overlaps, gaps and bytes that belong to no tensor: the format has none."""
    before = None
    for entry in sorted(entries, key=lambda entry: (entry.start, entry.stop)):
        if entry.start < place:
            raise CheckpointError(f"{file}: tensors {quoted(before)} and {quoted(entry.name)} overlap")
        if entry.start > place:
            raise CheckpointError(f"{file}: {entry.start - place} bytes before tensor {quoted(entry.name)} belong to no tensor")
        place, before = entry.stop, entry.name
    if place != size:
        raise CheckpointError(f"{file}: {size - place} bytes after the last tensor belong to no tensor")


def _unravel(place: int, shape: tuple[int, ...]) -> list[int]:
    """Return the index of entry number `place` of a tensor laid out flat."""
    index = []
    for n in reversed(shape):
        place, i = divmod(place, n)
        index.append(i)
    return index[::-1]
