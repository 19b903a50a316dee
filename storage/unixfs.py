"""Files and folders as chunks and manifests: add, read, list, and write back to a disk.

A manifest may come from a stranger. Names that leave their folder, sizes that do not add up, files of no end and
folders of folders without number are refused, and nothing is written but below the target.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from storage import cid as cids
from storage import hamt
from storage.dag_pb import Link
from storage.errors import (
    DiskFullError,
    ManifestError,
    PathNotFoundError,
    TargetExistsError,
)
from storage.importer import MAX_FOLDER_DEPTH, Added, add_path, content_size, hash_path
from storage.unixfs_nodes import Kind, UnixFsNode, check_name, read_node

if TYPE_CHECKING:
    from collections.abc import Iterator

    from storage.blockstore import Blockstore, Progress
    from storage.cid import Cid

__all__ = [
    "Added",
    "Entry",
    "Link",
    "add_path",
    "content_size",
    "hash_path",
    "links",
    "listing",
    "read_file",
    "resolve",
    "tree_size",
    "write_path",
]

MAX_FILE_DEPTH = 32
"""Levels of nodes in a file; 1,024 links a node reach 2^50 bytes in four."""
MAX_ENTRIES = 1_000_000
"""Files and folders in one root that is listed or written."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What stands in a folder.

    Attributes:
        name: Its own name, without the folder's.
        cid: Its root.
        size: Of a file: bytes of content. Of a folder: bytes of all its blocks, as its author claims.
        kind: A file or a folder; or a link, which is not followed.
    """

    name: str
    cid: Cid
    size: int
    kind: Literal["file", "folder", "symlink"]


def links(cid: Cid, block: bytes) -> list[Link]:
    """What a block names: nothing for a leaf, its children for a node, in their order.

    Raises:
        ManifestError: The node is malformed, or says of itself what cannot be.
    """
    return list(read_node(cid, block).links)


def tree_size(cid: Cid, block: bytes) -> int:
    """Bytes of all blocks at and below this one, as its author claims; for progress and quota."""
    return len(block) + sum(link.size for link in links(cid, block))


def read_file(root: Cid, store: Blockstore) -> Iterator[bytes]:
    """A file's bytes, a leaf at a time.

    Raises:
        ManifestError: It is a folder, or its manifest does not fit its bytes.
        ChunkNotFoundError: A chunk is not held.
    """
    node = _node(root, store)
    if node.kind is not Kind.FILE:
        message = f"{cids.text(root)} is not a file"
        raise ManifestError(message)
    yield from _read(node, store, MAX_FILE_DEPTH)


def listing(root: Cid, store: Blockstore) -> list[Entry]:
    """What stands in a folder, sorted by the bytes of the names.

    Raises:
        ManifestError: It is a file, or malformed.
        ChunkNotFoundError: The node of the folder, or of a file or folder in it, is not held.
    """
    return sorted(_entries(root, store), key=lambda entry: entry.name.encode())


def resolve(root: Cid, path: str, store: Blockstore) -> Cid:
    """The root of what stands at a path in a folder; the folder itself for an empty path.

    Raises:
        PathNotFoundError: Nothing stands there.
        ChunkNotFoundError: A node on the way is not held.
    """
    at = root
    for name in (part for part in path.split("/") if part):
        link = _find(_node(at, store), name, store)
        if link is None:
            raise PathNotFoundError(path, cids.text(root))
        at = link.cid
    return at


def write_path(
    root: Cid, store: Blockstore, target: Path, progress: Progress | None = None
) -> None:
    """Write a file or folder to `target`, which appears whole and durable or not at all.

    Args:
        root: What to write; all its chunks are held.
        store: Where they are.
        target: Where it is to be; a file there is replaced, a folder is not.
        progress: Told of each leaf.

    Raises:
        ManifestError: The manifest is malformed, holds a symbolic link, or a name that cannot be one.
        ChunkNotFoundError: A chunk is not held.
        TargetExistsError: A folder is there, or a file where a folder is to be.
        DiskFullError: The disk has no room for it.
    """
    node = _node(root, store)
    total = _content_size(node, store, "", [MAX_ENTRIES], MAX_FOLDER_DEPTH)
    if target.is_symlink() or target.is_dir() or (target.exists() and node.kind is not Kind.FILE):
        raise TargetExistsError(str(target))
    free = shutil.disk_usage(target.parent).free
    if total > free:
        raise DiskFullError(total, free)
    with tempfile.TemporaryDirectory(prefix=".swarm-", dir=target.parent) as beside:
        fresh = Path(beside) / "content"
        _Export(store, total, progress).write(node, fresh)
        if node.kind is Kind.FILE:
            _sync(fresh)
        else:
            os.sync()  # one wait for thousands of small files, where an fsync each takes minutes on a busy disk
        fresh.replace(target)
    _sync(target.parent)


class _Export:
    """One write of a tree whose names and sizes have been checked."""

    def __init__(self, store: Blockstore, total: int, progress: Progress | None) -> None:
        self._store = store
        self._total = total
        self._progress = progress
        self._done = 0

    def write(self, node: UnixFsNode, path: Path) -> None:
        """Write a file or a folder to a path where nothing is."""
        if node.kind is Kind.FILE:
            self._file(node, path)
            return
        path.mkdir()
        for link in _links(node, self._store):
            self.write(_node(link.cid, self._store), path / check_name(link.name))

    def _file(self, node: UnixFsNode, path: Path) -> None:
        with path.open("xb", buffering=0) as file:
            for leaf in _read(node, self._store, MAX_FILE_DEPTH):
                view = memoryview(leaf)
                while view:
                    view = view[file.write(view) :]
                self._done += len(leaf)
                if self._progress is not None:
                    self._progress(self._done, self._total)


def _node(cid: Cid, store: Blockstore) -> UnixFsNode:
    return read_node(cid, store.get(cid))


def _read(node: UnixFsNode, store: Blockstore, depth: int) -> Iterator[bytes]:
    if node.data:
        yield node.data
    if node.links and depth == 0:
        message = f"a file's manifest is deeper than {MAX_FILE_DEPTH} levels"
        raise ManifestError(message)
    for link, size in zip(node.links, node.block_sizes, strict=True):
        child = _node(link.cid, store)
        if child.kind is not Kind.FILE or child.size != size:
            message = f"{cids.text(link.cid)} is not the part of {size:,} bytes that it should be"
            raise ManifestError(message)
        yield from _read(child, store, depth - 1)


def _links(node: UnixFsNode, store: Blockstore) -> Iterator[Link]:
    """A folder's entries, sharded or not; each name once."""
    seen: set[str] = set()
    for link in hamt.entries(node, store.get) if node.kind is Kind.SHARD else node.links:
        if link.name in seen:
            message = f"a folder has two entries {link.name!r}"
            raise ManifestError(message)
        if len(seen) == MAX_ENTRIES:
            raise ManifestError(_TOO_MANY)
        seen.add(check_name(link.name))
        yield link


_TOO_MANY = f"a folder holds more than {MAX_ENTRIES:,} files and folders"


def _find(node: UnixFsNode, name: str, store: Blockstore) -> Link | None:
    if node.kind is Kind.SHARD:
        return hamt.find(node, name, store.get)
    if node.kind is Kind.FOLDER:
        return next((link for link in node.links if link.name == name), None)
    return None


def _entries(root: Cid, store: Blockstore) -> Iterator[Entry]:
    node = _node(root, store)
    if node.kind not in {Kind.FOLDER, Kind.SHARD}:
        message = f"{cids.text(root)} is not a folder"
        raise ManifestError(message)
    for link in _links(node, store):
        if cids.codec(link.cid) == cids.RAW:
            yield Entry(link.name, link.cid, store.size(link.cid), "file")
            continue
        child = _node(link.cid, store)
        if child.kind is Kind.FILE:
            yield Entry(link.name, link.cid, child.size, "file")
        elif child.kind is Kind.SYMLINK:
            yield Entry(link.name, link.cid, len(child.data), "symlink")
        else:
            yield Entry(link.name, link.cid, link.size, "folder")


def _content_size(
    node: UnixFsNode, store: Blockstore, path: str, left: list[int], depth: int
) -> int:
    """Bytes of all files, having looked at every name; `left` counts down over the whole tree."""
    if node.kind is Kind.FILE:
        return node.size
    if node.kind is Kind.SYMLINK:
        message = f"{path!r} is a symbolic link, and is not written"
        raise ManifestError(message)
    if depth == 0:
        message = f"{path[:64]!r} is nested deeper than {MAX_FOLDER_DEPTH} folders"
        raise ManifestError(message)
    total = 0
    for link in _links(node, store):
        left[0] -= 1
        if left[0] < 0:
            raise ManifestError(_TOO_MANY)
        if cids.codec(link.cid) == cids.RAW:
            total += store.size(link.cid)
        else:
            child = _node(link.cid, store)
            total += _content_size(child, store, f"{path}/{link.name}", left, depth - 1)
    return total


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
