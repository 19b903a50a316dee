"""Which tensors of a safetensors file changed: by their headers, then by their bytes, without reading shared chunks."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, TypeAlias

from storage import cid as cids
from storage.errors import ManifestError
from storage.safetensors_cut import LENGTH_BYTES, header_length, leaf_sizes
from storage.unixfs import MAX_FILE_DEPTH
from storage.unixfs_nodes import Kind, read_node

if TYPE_CHECKING:
    from storage.cid import Cid
    from swarm.versions.tree import Get

MAX_LEAVES = 2**20
MAX_NODES = 2**13
"""Above the leaves; `MAX_LEAVES` have 1,025 as we write them."""
Read: TypeAlias = Callable[["Cid", int, int], bytes]
"""Gives a leaf's bytes by (its CID, where it begins in the file, its size)."""


@dataclass(frozen=True, slots=True)
class TensorChanges:
    """Names of tensors, sorted.

    Attributes:
        added: Only in the new file.
        removed: Only in the old file.
        changed: Of another type or shape, or of other bytes.
        same: How many are in both and equal.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    same: int


class File:
    """A file by its leaves: their names at once, their bytes when asked for.

    Args:
        root: The file.
        size: Its bytes.
        get: Gives its manifest.
        read: Gives its leaves.

    Raises:
        ManifestError: It is malformed, or has bytes in its manifest, as we never write it.
    """

    def __init__(self, root: Cid, size: int, get: Get, read: Read) -> None:
        self.leaves = _leaves(root, size, get)
        self.starts = [0, *accumulate(size for _, size in self.leaves)]
        self.size = self.starts[-1]
        self._read = read
        self._last: tuple[int, bytes] = -1, b""

    def at(self, offset: int) -> tuple[Cid, int, int]:
        """The leaf that an offset is in: its CID, the offset within it, and how many bytes are left of it."""
        index = bisect_right(self.starts, offset) - 1
        cid, size = self.leaves[index]
        within = offset - self.starts[index]
        return cid, within, size - within

    def read(self, begin: int, end: int) -> bytes:
        """Bytes of the file; fewer where it is shorter than it should be."""
        parts = []
        while begin < min(end, self.size):
            cid, within, left = self.at(begin)
            size = min(left, end - begin)
            leaf = self._leaf(cid, begin - within, within + left)
            parts.append(leaf[within : within + size])
            begin += size
        return b"".join(parts)

    def _leaf(self, cid: Cid, begin: int, size: int) -> bytes:
        """A leaf's bytes; of many small tensors in one leaf, only the first has it read."""
        if self._last[0] != begin:
            self._last = begin, self._read(cid, begin, size)
        return self._last[1]


def tensor_changes(old: File, new: File) -> TensorChanges | None:
    """Compare two safetensors files; None where one of them is not what its header says."""
    before, after = _header(old), _header(new)
    if before is None or after is None:
        return None
    both = sorted(before.keys() & after.keys())
    changed = tuple(name for name in both if not _equal(old, before[name], new, after[name]))
    return TensorChanges(
        tuple(sorted(after.keys() - before.keys())),
        tuple(sorted(before.keys() - after.keys())),
        changed,
        len(both) - len(changed),
    )


@dataclass(frozen=True, slots=True)
class _Tensor:
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def _header(file: File) -> dict[str, _Tensor] | None:
    length = header_length(file.read(0, LENGTH_BYTES), file.size)
    if length is None:
        return None
    text = file.read(LENGTH_BYTES, LENGTH_BYTES + length)
    if leaf_sizes(text, file.size) is None:  # checks everything that is read below
        return None
    start = LENGTH_BYTES + length
    return {
        name: _Tensor(
            one["dtype"],
            tuple(one["shape"]),
            start + one["data_offsets"][0],
            start + one["data_offsets"][1],
        )
        for name, one in json.loads(text).items()
        if name != "__metadata__"
    }


def _equal(old: File, before: _Tensor, new: File, after: _Tensor) -> bool:
    if (before.dtype, before.shape) != (after.dtype, after.shape):
        return False
    if before.end - before.begin != after.end - after.begin:
        return False
    at, other = before.begin, after.begin
    while at < before.end:
        cid, within, left = old.at(at)
        other_cid, other_within, other_left = new.at(other)
        size = min(left, other_left, before.end - at)
        shared = (cid, within) == (other_cid, other_within)
        if not shared and old.read(at, at + size) != new.read(other, other + size):
            return False
        at += size
        other += size
    return True


def _leaves(root: Cid, size: int, get: Get) -> list[tuple[Cid, int]]:
    """The leaves of a file in order, each with its size."""
    found: list[tuple[Cid, int]] = []
    nodes = 0

    def walk(cid: Cid, size: int, depth: int) -> None:
        nonlocal nodes
        if cids.codec(cid) == cids.RAW:
            found.append((cid, size))
            if len(found) > MAX_LEAVES:
                message = f"{cids.text(root)} has more than {MAX_LEAVES:,} leaves"
                raise ManifestError(message)
            return
        nodes += 1
        if nodes > MAX_NODES:
            message = f"{cids.text(root)} has more than {MAX_NODES:,} nodes above its leaves"
            raise ManifestError(message)
        node = read_node(cid, get(cid))
        wrong = node.kind is not Kind.FILE or node.data or node.size != size
        if wrong or depth == 0:
            message = f"{cids.text(cid)} is not a node of a file as we write it"
            raise ManifestError(message)
        for link, below in zip(node.links, node.block_sizes, strict=True):
            walk(link.cid, below, depth - 1)

    walk(root, size, MAX_FILE_DEPTH)
    return found
