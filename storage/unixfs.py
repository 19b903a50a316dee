"""Files and folders as chunks and manifests: add, read, list, and write back to a disk.

A manifest may come from a stranger. Names and links that leave their folder, sizes that do not add up, files of no
end and folders of folders without number are refused, and nothing is written but below the target.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Literal

from storage import cid as cids
from storage import dag, hamt
from storage.errors import (
    ChunkNotFoundError,
    ManifestError,
    PathNotFoundError,
    TargetExistsError,
)
from storage.files import check_free
from storage.importer import MAX_FOLDER_DEPTH, Added, add_path, content_size, hash_path
from storage.unixfs_beside import beside
from storage.unixfs_nodes import (
    MAX_FILE_BYTES,
    MAX_TARGET_BYTES,
    Kind,
    UnixFsNode,
    check_name,
    check_target,
    read_node,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from storage.blockstore import Blockstore, Progress
    from storage.cid import Cid
    from storage.dag_pb import Link

__all__ = [
    "Added",
    "Entry",
    "add_path",
    "content_size",
    "entity",
    "hash_path",
    "listing",
    "look",
    "names",
    "plan_listing",
    "plan_range",
    "plan_resolve",
    "read_file",
    "read_range",
    "resolve",
    "write_path",
]

MAX_FILE_DEPTH = 32
"""Levels of nodes in a file; 1,024 links a node reach 2^50 bytes in four."""
MAX_ENTRIES = 1_000_000
"""Files and folders in one root that is listed or written."""
MAX_PLANNED = 1_024
"""Chunks that are named as missing at a time."""
MAX_SMALL_PARTS = 2**17
"""Parts of files below `SMALL_BYTES` that one read or write gathers: a few nodes can name a byte 2^50 times."""
SMALL_BYTES = 1_024


_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


@dataclass(frozen=True, slots=True)
class Entry:
    """What stands in a folder.

    Attributes:
        name: Its own name, without the folder's.
        cid: Its root.
        size: Of a file: bytes of content; as its author claims if it is one chunk that is not held.
            Of a folder: bytes of all its blocks as its author claims, or 0. Of a link: of its target.
        kind: A file or a folder; or a symbolic link, which is not followed.
        mode: Who may read, write and execute it; None if nobody says.
    """

    name: str
    cid: Cid
    size: int
    kind: Literal["file", "folder", "symlink"]
    mode: int | None = None


def read_file(root: Cid, store: Blockstore) -> Iterator[bytes]:
    """A file's bytes, a leaf at a time.

    Raises:
        ManifestError: It is a folder, or its manifest does not fit its bytes.
        ChunkNotFoundError: A chunk is not held.
    """
    yield from read_range(root, store, 0, MAX_FILE_BYTES)


def read_range(root: Cid, store: Blockstore, start: int, length: int) -> Iterator[bytes]:
    """Some of a file's bytes, at most a leaf at a time; only the chunks that hold them are read.

    Args:
        root: The file.
        store: Where its chunks are.
        start: The first byte, from 0.
        length: How many; fewer come where the file ends.

    Raises:
        ManifestError: It is no file, or its manifest does not fit its bytes.
        ChunkNotFoundError: A chunk is not held.
    """
    node = _file(root, store)
    yield from _read(node, store, MAX_FILE_DEPTH, start, start + length, [MAX_SMALL_PARTS])


def entity(root: Cid, store: Blockstore, start: int, length: int) -> Iterator[Cid]:
    """The chunks that one thing is made of, depth first; below those that are not held nobody knows.

    Of a file: those that `read_range` reads. Of a folder: its node and its shards. Of a link: its node.

    Raises:
        ManifestError: As `read_range`.
    """
    yield root
    if dag.is_manifest(root) and store.has(root):
        node = _node(root, store)
        yield from _entity(root, node, store, start, start + length, MAX_FILE_DEPTH, set())


def plan_range(
    root: Cid, store: Blockstore, start: int = 0, length: int = 0, most: int = MAX_PLANNED
) -> list[Cid]:
    """The chunks of `entity` that are not held.

    Fetch them, each alone, and ask again: when none is left, the range can be read, or the folder's names.

    Args:
        root: A file; or a folder, of which no range is taken.
        store: What is held.
        start: The first byte.
        length: How many bytes.
        most: Chunks to name at a time.

    Raises:
        ManifestError: As `read_range`.
    """
    missing = (cid for cid in entity(root, store, start, length) if not store.has(cid))
    return list(islice(dict.fromkeys(missing), most))


def look(root: Cid, store: Blockstore) -> Entry:
    """What a root is by itself: an entry without a name.

    Raises:
        ManifestError: It is malformed.
        ChunkNotFoundError: It is not held.
    """
    data = store.get(root)
    return _entry("", root, read_node(root, data), len(data))


def listing(root: Cid, store: Blockstore) -> list[Entry]:
    """What stands in a folder, sorted by the bytes of the names.

    Raises:
        ManifestError: It is a file, or malformed.
        ChunkNotFoundError: The node of the folder, or of a file or folder in it, is not held.
    """
    return sorted(_entries(root, store), key=lambda entry: entry.name.encode())


def names(root: Cid, store: Blockstore) -> Iterator[Link]:
    """The entries of a folder, each with the bytes below it that its author claims; reads no entry.

    Raises:
        ManifestError: It is a file, or malformed.
        ChunkNotFoundError: A chunk of the folder is not held.
    """
    return _links(_folder(root, store), store)


def plan_listing(root: Cid, store: Blockstore, most: int = MAX_PLANNED) -> list[Cid]:
    """The chunks that `listing` needs and that are not held; fetch them, each alone, and ask again.

    Raises:
        ManifestError: As `listing`.
    """
    if missing := plan_range(root, store, most=most):
        return missing
    nodes = (link.cid for link in names(root, store) if dag.is_manifest(link.cid))
    return list(islice((cid for cid in nodes if not store.has(cid)), most))


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


def plan_resolve(root: Cid, path: str, store: Blockstore) -> list[Cid]:
    """The next chunk that `resolve` needs and that is not held, if any; fetch it alone and ask again.

    Raises:
        PathNotFoundError: As `resolve`.
    """
    try:
        resolve(root, path, store)
    except ChunkNotFoundError as error:
        return [cids.parse(error.cid)]
    return []


def write_path(
    root: Cid, store: Blockstore, target: Path, progress: Progress | None = None
) -> None:
    """Write a file or folder to `target`, which appears whole and durable or not at all.

    A mode is honoured within the umask and never with more than `rwxrwxrwx`; its owner can always read what was written.

    Args:
        root: What to write; all its chunks are held.
        store: Where they are.
        target: Where it is to be; a file there is replaced, a folder is not.
        progress: Told of each leaf.

    Raises:
        ManifestError: The manifest is malformed, or holds a name that cannot be one or a symbolic link that leads out.
        ChunkNotFoundError: A chunk is not held.
        TargetExistsError: A folder is there, or a file where a folder is to be.
        FileSystemFullError: The target's file system has no room for it.
    """
    node = _node(root, store)
    total = _Measure(store).of(node, "", 0).size
    if target.is_symlink() or target.is_dir() or (target.exists() and node.kind is not Kind.FILE):
        raise TargetExistsError(str(target))
    check_free(target.parent, total)
    with beside(target) as fresh:
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
        self._small_left = [MAX_SMALL_PARTS]

    def write(self, node: UnixFsNode, path: Path) -> None:
        """Write a file, a folder or a link to a path where nothing is."""
        if node.kind is Kind.FILE:
            self._file(node, path)
            return
        if node.kind is Kind.SYMLINK:
            path.symlink_to(_target(node))
            return
        path.mkdir(0o777 if node.mode is None else node.mode | 0o700)
        for link in _links(node, self._store):
            self.write(_node(link.cid, self._store), path / check_name(link.name))

    def _file(self, node: UnixFsNode, path: Path) -> None:
        mode = 0o666 if node.mode is None else node.mode | 0o400
        with open(os.open(path, _NEW_FILE, mode), "wb", buffering=0) as file:  # noqa: PTH123 - a descriptor
            parts = _read(node, self._store, MAX_FILE_DEPTH, 0, node.size, self._small_left)
            for leaf in parts:
                view = memoryview(leaf)
                while view:
                    view = view[file.write(view) :]
                self._done += len(leaf)
                if self._progress is not None:
                    self._progress(self._done, self._total)


def _node(cid: Cid, store: Blockstore) -> UnixFsNode:
    return read_node(cid, store.get(cid))


def _file(root: Cid, store: Blockstore) -> UnixFsNode:
    node = _node(root, store)
    if node.kind is not Kind.FILE:
        message = f"{cids.text(root)} is not a file"
        raise ManifestError(message)
    return node


def _folder(root: Cid, store: Blockstore) -> UnixFsNode:
    node = _node(root, store)
    if node.kind not in {Kind.FOLDER, Kind.SHARD}:
        message = f"{cids.text(root)} is not a folder"
        raise ManifestError(message)
    return node


def _read(
    node: UnixFsNode, store: Blockstore, depth: int, start: int, end: int, left: list[int]
) -> Iterator[bytes]:
    """The bytes from `start` to before `end` of what is below a node; `left` counts small parts down."""
    if own := node.data[max(0, start) : max(0, end)]:
        yield own
    for link, at, size in _parts(node, depth, start, end):
        child = _part(link.cid, store, size)
        left[0] -= size < SMALL_BYTES
        if left[0] < 0:
            message = f"more than {MAX_SMALL_PARTS:,} parts of less than {SMALL_BYTES:,} bytes"
            raise ManifestError(message)
        yield from _read(child, store, depth - 1, start - at, end - at, left)


def _part(cid: Cid, store: Blockstore, size: int) -> UnixFsNode:
    """A child of a file's node, which is of the size that its parent says."""
    node = _node(cid, store)
    if node.kind is not Kind.FILE or node.size != size:
        message = f"{cids.text(cid)} is not the part of {size:,} bytes that it should be"
        raise ManifestError(message)
    return node


def _entity(
    cid: Cid,
    node: UnixFsNode,
    store: Blockstore,
    start: int,
    end: int,
    depth: int,
    whole: set[Cid],
) -> Iterator[Cid]:
    """What is below a node of `entity`; `whole` holds what was walked from end to end, which is not walked again."""
    if node.kind is Kind.FILE:
        if start <= 0 and end >= node.size:
            whole.add(cid)
        for link, at, size in _parts(node, depth, start, end):
            if link.cid in whole:
                continue
            yield link.cid
            if dag.is_manifest(link.cid) and store.has(link.cid):
                part = _part(link.cid, store, size)
                first, last = max(0, start - at), min(size, end - at)
                yield from _entity(link.cid, part, store, first, last, depth - 1, whole)
    elif node.kind is Kind.SHARD and depth:
        whole.add(cid)
        for below in hamt.shards(node):
            if below in whole:
                continue
            yield below
            if dag.is_manifest(below) and store.has(below):
                # No range is taken of a folder, nor of what a liar puts in the place of a shard.
                yield from _entity(below, _node(below, store), store, 0, 0, depth - 1, whole)


def _parts(node: UnixFsNode, depth: int, start: int, end: int) -> Iterator[tuple[Link, int, int]]:
    """The children that hold some of a range: (link, where its bytes begin, how many)."""
    if node.links and depth == 0:
        message = f"a file's manifest is deeper than {MAX_FILE_DEPTH} levels"
        raise ManifestError(message)
    at = len(node.data)
    for link, size in zip(node.links, node.block_sizes, strict=True):
        if at >= end:
            return
        if start < at + size:
            yield link, at, size
        at += size


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
    last: tuple[Cid, UnixFsNode] | None = None
    for link in sorted(_links(_folder(root, store), store), key=lambda link: link.cid):
        if not dag.is_manifest(link.cid):
            held = link.size is None or store.has(link.cid)
            yield Entry(
                link.name, link.cid, store.size(link.cid) if held else link.size or 0, "file"
            )
        else:
            if last is None or last[0] != link.cid:  # one large node under many names is read once
                last = link.cid, _node(link.cid, store)
            yield _entry(link.name, link.cid, last[1], link.size or 0)


def _entry(name: str, cid: Cid, node: UnixFsNode, tree: int) -> Entry:
    if node.kind is Kind.FILE:
        return Entry(name, cid, node.size, "file", node.mode)
    if node.kind is Kind.SYMLINK:
        return Entry(name, cid, len(node.data), "symlink", node.mode)
    return Entry(name, cid, tree, "folder", node.mode)


@dataclass(frozen=True, slots=True)
class _Measured:
    """Bytes of all files in something that is to be written, and how many names are in it."""

    size: int
    entries: int = 0


class _Measure:
    """One look at every name before a tree is written.

    A few small manifests can name millions: what stands under several names at one depth is looked at once.
    At one depth, since from there on it is the same what is nested too deep and which link leads out.
    """

    def __init__(self, store: Blockstore) -> None:
        self._store = store
        self._known: dict[tuple[Cid, int], _Measured] = {}
        self._looked_at = 0

    def of(self, node: UnixFsNode, path: str, depth: int) -> _Measured:
        """What is at a path, `depth` folders below the root.

        Raises:
            ManifestError: It is not to be written.
        """
        if node.kind is Kind.FILE:
            return _Measured(node.size)
        if node.kind is Kind.SYMLINK:
            _check_link(node, path)
            return _Measured(0)
        if depth == MAX_FOLDER_DEPTH:
            message = f"{path[:64]!r} is nested deeper than {MAX_FOLDER_DEPTH} folders"
            raise ManifestError(message)
        size = entries = 0
        for link in _links(node, self._store):
            self._looked_at += 1
            found = self._below(link, path, depth + 1)
            size += found.size
            entries += 1 + found.entries
            if max(entries, self._looked_at) > MAX_ENTRIES:
                raise ManifestError(_TOO_MANY)
        return _Measured(size, entries)

    def _below(self, link: Link, path: str, depth: int) -> _Measured:
        if cids.codec(link.cid) == cids.RAW:
            return _Measured(self._store.size(link.cid))
        found = self._known.get((link.cid, depth))
        if found is None:
            found = self.of(_node(link.cid, self._store), f"{path}/{link.name}", depth)
            self._known[link.cid, depth] = found
        return found


def _target(node: UnixFsNode) -> str:
    try:
        return node.data.decode()
    except UnicodeDecodeError as error:
        message = "the target of a symbolic link is not UTF-8"
        raise ManifestError(message) from error


def _check_link(node: UnixFsNode, path: str) -> None:
    folders = path.count("/") - 1
    if folders < 0:
        message = "a symbolic link by itself is not written"
        raise ManifestError(message)
    try:
        check_target(_target(node), folders)
    except ManifestError as error:
        message = f"{path[-MAX_TARGET_BYTES:]!r} is not written: {error}"
        raise ManifestError(message) from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
