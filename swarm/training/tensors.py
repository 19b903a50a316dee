"""Safetensors files, written in one spelling and read with suspicion.

Why not the `safetensors` package: the order of its header's metadata is not fixed, and checkpoints must
have the same bytes on every machine; and its reader gives no bounds on what a peer's header may ask for.
The tests hold both against it.

    file = length of the header (u64, little endian) || header (JSON, padded with spaces to 8) || data

Source: https://github.com/huggingface/safetensors (format).
"""

from __future__ import annotations

import json
import math
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from swarm.training.errors import TensorFileError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

Array: TypeAlias = NDArray[Any]

MAX_HEADER_BYTES = 2**20
MAX_TENSORS = 2**14
MAX_DIMENSIONS = 8
MAX_EXTENT = 2**63
"""Bytes that a tensor's sizes may span, those of 0 taken as 1: no array of more can be named, though it holds nothing."""
MAX_METADATA = 64
MAX_TEXT = 1024
"""Characters of a tensor's name, and of a metadata key or value."""

OWN: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "I64": np.dtype("<i8"),
    "U8": np.dtype("u1"),
}
WIDE: dict[str, np.dtype[Any]] = {
    **OWN,
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),  # numpy has none: the upper half of a float32
    "BOOL": np.dtype("?"),
}
"""What published base models have beside what we write."""
_NAMES = {dtype: name for name, dtype in WIDE.items()}


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor that the header promises; offsets are from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class TensorFile:
    """A checked file; tensors are views of its bytes."""

    tensors: dict[str, Array]
    metadata: dict[str, str]


def encode(tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> bytes:
    """The file's bytes: tensors in order of name, the same on every machine.

    Args:
        tensors: Arrays of the types of `WIDE` by name.
        metadata: Text by key.
    """
    return b"".join(_pieces(tensors, metadata))


def _pieces(tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> Iterator[bytes]:
    """A file's bytes, one tensor at a time."""
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    at = 0
    for name in sorted(tensors):
        array = tensors[name]
        header[name] = {
            "dtype": _NAMES[array.dtype.newbyteorder("<")],
            "shape": list(array.shape),
            "data_offsets": [at, at + array.nbytes],
        }
        at += array.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=True).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        yield array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def decode(
    data: bytes | memoryview, *, max_bytes: int, types: Mapping[str, np.dtype[Any]] = OWN
) -> TensorFile:
    """Check a whole file in memory; nothing is allocated for what its header says.

    Args:
        data: The file.
        max_bytes: It has no more.
        types: That tensors may have, by their names in the header.

    Raises:
        TensorFileError: Malformed, too large, or with gaps, overlaps or bytes that belong to no tensor.
    """
    if len(data) > max_bytes:
        message = f"has {len(data):,} bytes, at most {max_bytes:,} are allowed"
        raise TensorFileError(message)
    entries, metadata = parse_header(data, types)
    return TensorFile({name: _view(data, one, types) for name, one in entries.items()}, metadata)


def _view(data: bytes | memoryview, entry: Entry, types: Mapping[str, np.dtype[Any]]) -> Array:
    count = math.prod(entry.shape)
    try:
        flat: Array = np.frombuffer(data, types[entry.dtype], count=count, offset=entry.begin)
        return flat.reshape(entry.shape)
    except ValueError as error:  # what `_entry` lets through, numpy can name; a stranger wrote it
        message = f"has a tensor of a shape that no array has: {entry.shape}"
        raise TensorFileError(message) from error


def read(path: Path, *, max_bytes: int, types: Mapping[str, np.dtype[Any]] = OWN) -> TensorFile:
    """Map a file into memory and check it, as `decode` does.

    Raises:
        TensorFileError: As `decode`; also when there is no such file.
    """
    try:
        size = path.stat().st_size
        if size > max_bytes or size < 8:
            message = f"{path.name} has {size:,} bytes, 8 to {max_bytes:,} are allowed"
            raise TensorFileError(message)
        mapped = np.memmap(path, np.uint8, mode="r")
    except OSError as error:
        message = f"{path.name} cannot be read: {error.strerror}"
        raise TensorFileError(message) from error
    view = memoryview(mapped)  # type: ignore[arg-type]  # an array is a buffer
    return decode(view, max_bytes=max_bytes, types=types)


def write(path: Path, tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> int:
    """Write a file beside its place and rename it into place.

    Returns:
        Its length in bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with beside(path) as temporary, temporary.open("wb") as file:
        return sum(file.write(piece) for piece in _pieces(tensors, metadata))


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A name in the same folder, renamed to `path` at the end; what a full disk leaves there does not fill it further."""
    temporary = path.with_name(path.name + ".part")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def parse_header(
    data: bytes | memoryview, types: Mapping[str, np.dtype[Any]] = OWN
) -> tuple[dict[str, Entry], dict[str, str]]:
    """Check the header against the bytes that are there.

    Returns:
        (entries by name, metadata).

    Raises:
        TensorFileError: See `decode`.
    """
    if len(data) < 8:
        message = "is shorter than the length of its header"
        raise TensorFileError(message)
    length = int.from_bytes(data[:8], "little")
    if length > MAX_HEADER_BYTES or 8 + length > len(data):
        message = f"says that its header has {length:,} bytes"
        raise TensorFileError(message)
    try:
        header = json.loads(bytes(data[8 : 8 + length]).decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        message = f"has a header that is not JSON: {error}"
        raise TensorFileError(message) from error
    if not isinstance(header, dict) or len(header) > MAX_TENSORS:
        message = f"has a header that is no object of at most {MAX_TENSORS:,} entries"
        raise TensorFileError(message)
    metadata = _metadata(header.pop("__metadata__", {}))
    entries = {name: _entry(name, item, 8 + length, types) for name, item in header.items()}
    at = 8 + length
    for name, entry in sorted(entries.items(), key=lambda pair: (pair[1].begin, pair[1].end)):
        if entry.begin != at:
            message = f"has a gap or an overlap before tensor {name!r}"
            raise TensorFileError(message)
        at = entry.end
    if at != len(data):
        message = f"has {len(data):,} bytes where its header accounts for {at:,}"
        raise TensorFileError(message)
    return entries, metadata


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        message = "a key stands twice"
        raise ValueError(message)
    return result


def _metadata(value: Any) -> dict[str, str]:  # noqa: ANN401 - JSON gives anything
    if (
        not isinstance(value, dict)
        or len(value) > MAX_METADATA
        or any(not isinstance(item, str) or len(item) > MAX_TEXT for item in value.values())
        or any(len(key) > MAX_TEXT for key in value)
    ):
        message = (
            f"has metadata that is not at most {MAX_METADATA} texts of {MAX_TEXT:,} characters"
        )
        raise TensorFileError(message)
    return value


def _entry(
    name: str,
    value: Any,  # noqa: ANN401 - JSON gives anything
    start: int,
    types: Mapping[str, np.dtype[Any]],
) -> Entry:
    message = f"has a malformed entry for tensor {name[:80]!r}"
    if (
        len(name) > MAX_TEXT
        or not isinstance(value, dict)
        or set(value) != {"dtype", "shape", "data_offsets"}
    ):
        raise TensorFileError(message)
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if (
        not isinstance(dtype, str)
        or dtype not in types
        or not isinstance(shape, list)
        or len(shape) > MAX_DIMENSIONS
        or any(type(size) is not int or not 0 <= size < 2**40 for size in shape)
        or not isinstance(offsets, list)
        or len(offsets) != 2
        or any(type(at) is not int or not 0 <= at < 2**48 for at in offsets)
        or offsets[1] - offsets[0] != math.prod(shape) * types[dtype].itemsize
        or math.prod(max(1, size) for size in shape) * types[dtype].itemsize >= MAX_EXTENT
    ):
        raise TensorFileError(message)
    return Entry(dtype, tuple(shape), start + offsets[0], start + offsets[1])
