"""Where a file is cut into leaves: safetensors along their tensors, everything else at each MiB."""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage import safetensors_cut
from storage.unixfs_nodes import LEAF_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import FileIO

SAFETENSORS_SUFFIX = ".safetensors"


def leaf_sizes(file: FileIO, name: str, size: int) -> Iterator[int]:
    """The sizes of a file's leaves in order, summing to its size.

    Args:
        file: Open at its beginning; left there.
        name: Of the file; its suffix says the format.
        size: Of the file, bytes.
    """
    cuts = _along_tensors(file, size) if name.endswith(SAFETENSORS_SUFFIX) else None
    if cuts is not None:
        yield from cuts
        return
    for at in range(0, size, LEAF_BYTES):
        yield min(LEAF_BYTES, size - at)


def _along_tensors(file: FileIO, size: int) -> list[int] | None:
    try:
        length = safetensors_cut.header_length(file.read(safetensors_cut.LENGTH_BYTES) or b"", size)
        if length is None:
            return None
        header = read_exactly(file, length)
        return safetensors_cut.leaf_sizes(header, size) if len(header) == length else None
    finally:
        file.seek(0)


def read_exactly(file: FileIO, size: int) -> bytes:
    """Read that many bytes, or fewer at the end of the file."""
    data = file.read(size) or b""
    if len(data) in {0, size}:
        return data
    parts = [data]
    left = size - len(data)
    while left and (more := file.read(left)):
        parts.append(more)
        left -= len(more)
    return b"".join(parts)
