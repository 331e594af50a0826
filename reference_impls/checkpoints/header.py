"""The header of a safetensors file, checked claim by claim.

A file is eight bytes (the length of the header), the header (JSON: name -> dtype, shape, place) and the tensors' bytes. Whatever
the header says is checked before memory is taken for it: each tensor lies inside the file, its length is that of its shape and
dtype, and together they fill the file without gap or overlap, as the format demands. The functions here take bytes, not files.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from reference_impls.checkpoints.errors import CheckpointError, quoted

DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "U16": torch.uint16, "I16": torch.int16,
    "U32": torch.uint32, "I32": torch.int32, "U64": torch.uint64, "I64": torch.int64,
    "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64,
}  # fmt: skip

MAX_HEADER = 100_000_000  # bytes, the format's own limit
MAX_TEXT = 16_000_000  # bytes of one name or one value of the metadata
MAX_TENSORS = 250_000  # in one file: twice what the largest models have in all their files together

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


def header_length(head: bytes, size: int, file: Path) -> int:
    """Return the length of the header from the first eight bytes of a file of `size` bytes."""
    if len(head) < 8:
        raise CheckpointError(f"{file}: has {size} bytes; a safetensors file has at least 8 and a header")
    length = int.from_bytes(head, "little")
    if length > MAX_HEADER:
        raise CheckpointError(
            f"{file}: announces a header of {length} bytes; the format allows {MAX_HEADER} (is this a safetensors file?)"
        )
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
    if len(string) > MAX_TEXT:
        raise CheckpointError(f"{file}: the header holds a text of {len(string)} bytes; at most {MAX_TEXT} are read")
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
        keys = quoted([key for key, _ in pairs])
        raise CheckpointError(f"{tensor} has {keys}; dtype, shape and data_offsets are needed, each once")
    code, shape, offsets = said["dtype"], said["shape"], said["data_offsets"]
    if not isinstance(code, str) or code not in DTYPES:
        raise CheckpointError(f"{tensor} has dtype {quoted(code)}; convert it to one of {', '.join(DTYPES)} first")
    if not _sizes(shape) or len(shape) > 64 or math.prod(n or 1 for n in shape) >= 2**63:
        raise CheckpointError(f"{tensor} has shape {quoted(shape)}; up to 64 whole sizes whose product is below 2**63 are needed")
    if not _sizes(offsets) or len(offsets) != 2:
        raise CheckpointError(f"{tensor} has data_offsets {quoted(offsets)}; two whole numbers are needed")
    start, stop = offsets
    need = math.prod(shape) * DTYPES[code].itemsize
    if stop - start != need:
        raise CheckpointError(f"{tensor} has {stop - start} bytes by its offsets; {code} of shape {quoted(shape)} needs {need}")
    if data + stop > size:
        raise CheckpointError(f"{tensor} ends at byte {data + stop} of a file of {size}; the file is cut off or damaged")
    return Entry(name, file, DTYPES[code], tuple(shape), data + start, data + stop)


def _sizes(value: object) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 2**63 for n in value)


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
