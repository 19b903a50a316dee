"""Where to cut a safetensors file, so that two versions share what did not change.

    file = length of the header (u64, little endian) || header (JSON) || the tensors, one after the other

The header is cut off by itself, because it changes its length with any name in it.
The tensors are then taken in the order of the disk and gathered into runs: a run ends with the first tensor that brings
it to 256 KiB, and is cut into as few equal leaves of at most 1 MiB as it takes.
So every leaf but the last has 256 KiB or more, each tensor of 256 KiB or more ends a run, and what follows it is cut the
same in any version. The header is a stranger's: one that does not describe the file exactly is not followed.

Source: https://github.com/huggingface/safetensors#format; the cutting is ours.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from storage.unixfs_nodes import LEAF_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

MIN_LEAF_BYTES = 256 * 2**10
MAX_HEADER_BYTES = 16 * 2**20
MAX_TENSORS = 100_000
LENGTH_BYTES = 8


def header_length(start: bytes, file_size: int) -> int | None:
    """How long the header is, from the file's first eight bytes; None if it cannot be one."""
    length = int.from_bytes(start[:LENGTH_BYTES], "little")
    if len(start) < LENGTH_BYTES or not 2 <= length <= min(
        MAX_HEADER_BYTES, file_size - LENGTH_BYTES
    ):
        return None
    return length


def leaf_sizes(header: bytes, file_size: int) -> list[int] | None:
    """The sizes of the file's leaves in order.

    Args:
        header: The JSON alone.
        file_size: Of the whole file, bytes.

    Returns:
        Sizes that sum to `file_size`, or None if the header does not describe the file.
    """
    tensors = _tensors(header)
    if tensors is None:
        return None
    end = 0
    for begin, stop in tensors:
        if begin != end:
            return None
        end = stop
    if LENGTH_BYTES + len(header) + end != file_size:
        return None
    sizes = list(_cut_header(LENGTH_BYTES + len(header)))
    run = 0
    for begin, stop in tensors:
        run += stop - begin
        if run >= MIN_LEAF_BYTES:
            sizes += _cut_run(run)
            run = 0
    return sizes + list(_cut_run(run))


def _cut_header(size: int) -> Iterator[int]:
    for at in range(0, size, LEAF_BYTES):
        yield min(LEAF_BYTES, size - at)


def _cut_run(size: int) -> Iterator[int]:
    pieces = -(-size // LEAF_BYTES)
    for piece in range(pieces):
        yield size * (piece + 1) // pieces - size * piece // pieces


def _tensors(header: bytes) -> list[tuple[int, int]] | None:
    """(begin, end) of each tensor in the order of the disk, or None.

    Everything is checked by rules that do not depend on the JSON reader's own limits, so that each machine cuts alike.
    """
    try:
        described = json.loads(header.decode())
    except (ValueError, RecursionError):
        return None
    if not isinstance(described, dict) or len(described) > MAX_TENSORS:
        return None
    tensors = []
    for name, tensor in described.items():
        if name == "__metadata__":
            if not isinstance(tensor, dict) or not all(
                isinstance(value, str) for value in tensor.values()
            ):
                return None
            continue
        span = _span(tensor)
        if span is None:
            return None
        tensors.append(span)
    return sorted(tensors)


def _span(tensor: Any) -> tuple[int, int] | None:  # noqa: ANN401 a stranger's JSON
    if not isinstance(tensor, dict) or tensor.keys() != {"dtype", "shape", "data_offsets"}:
        return None
    shape, offsets = tensor["shape"], tensor["data_offsets"]
    if not isinstance(tensor["dtype"], str) or not _whole_numbers(shape):
        return None
    if not _whole_numbers(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        return None
    return offsets[0], offsets[1]


def _whole_numbers(value: Any) -> bool:  # noqa: ANN401 a stranger's JSON
    return isinstance(value, list) and all(
        type(number) is int and 0 <= number < 2**63 for number in value
    )
