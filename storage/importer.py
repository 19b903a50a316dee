"""From files to chunks and manifests: read, cut, hash and store, with as much in memory as is on its way.

The thread that calls reads and hashes; another writes, so that the disk works while the next chunks are hashed.
"""

from __future__ import annotations

import os
import queue
import stat
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from storage import cid as cids
from storage import hamt
from storage.chunker import leaf_sizes, read_exactly
from storage.dag_pb import Link
from storage.errors import ManifestError, QuotaError
from storage.in_place import InPlaceSink
from storage.pins import MAX_LABEL_CHARACTERS
from storage.references import FileState
from storage.unixfs_nodes import (
    FILE_LINKS,
    FILE_MODE,
    FOLDER_NODE_BYTES,
    MODE_BITS,
    Built,
    check_name,
    check_target,
    file_node,
    folder_node,
    symlink_node,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from storage.blockstore import Blockstore, Progress
    from storage.cid import Cid
    from storage.quota import Reservation

MAX_FOLDER_DEPTH = 64
MAX_QUEUED_CHUNKS = 16
"""Chunks that wait for the disk; with leaves of 1 MiB that is 16 MiB."""


@dataclass(frozen=True, slots=True)
class Added:
    """What came of adding a file or folder.

    Attributes:
        root: The CID that names it.
        size: Bytes of content.
        chunks: Chunks and manifest nodes, those that occur twice counted twice.
        new_bytes: Bytes that the store did not hold before, 0 without a store.
    """

    root: Cid
    size: int
    chunks: int
    new_bytes: int


def add_path(
    path: Path,
    store: Blockstore,
    progress: Progress | None = None,
    *,
    preserve_mode: bool = False,
    in_place: bool = False,
    skip: Collection[str] = (),
) -> Added:
    """Put a file or a folder into the store, durable when this returns.

    It holds a lease while it works. Who wants to keep the root holds one around this call, and pins the root in it.

    Args:
        path: A file, or a folder with everything in it, hidden files too.
        store: Where the chunks go.
        progress: Told of each chunk.
        preserve_mode: Keep who may read, write and execute each file and folder; their CIDs are others then.
        in_place: Leave the content where it is, and only remember where that is.
        skip: Names directly in the folder that are no part of it.

    Returns:
        Its root and what it took.

    Raises:
        ManifestError: A device, a socket, a symbolic link that leads out of the path, a name that is not UTF-8, or
            a file that changed while it was read.
        QuotaError: It does not fit, and what the store holds already was taken into account.
    """
    with store.lease(f"add {path.name}"[:MAX_LABEL_CHARACTERS]):
        if in_place:
            return _add_in_place(path, store, progress, preserve_mode=preserve_mode, skip=skip)
        return _add_copy(path, store, progress, preserve_mode=preserve_mode, skip=skip)


def _add_in_place(
    path: Path,
    store: Blockstore,
    progress: Progress | None,
    *,
    preserve_mode: bool,
    skip: Collection[str],
) -> Added:
    size = content_size(path, skip)
    sink = InPlaceSink(store)
    work = _Import(sink, size, progress, preserve_mode=preserve_mode, skip=skip)
    built, chunks = work.add(path)
    sink.flush()
    return Added(built.cid, work.done, chunks, sink.new_bytes)


def _add_copy(
    path: Path,
    store: Blockstore,
    progress: Progress | None,
    *,
    preserve_mode: bool,
    skip: Collection[str],
) -> Added:
    size = content_size(path, skip)
    try:
        reservation = store.reserve(size)
    except QuotaError:
        # Much of it may be held already, which only its hashes say.
        missing = _MissingSink(store)
        _Import(missing, size, None, preserve_mode=preserve_mode, skip=skip).add(path)
        reservation = store.reserve(missing.size)
    with reservation:
        sink = _StoreSink(store, reservation)
        try:
            work = _Import(sink, size, progress, preserve_mode=preserve_mode, skip=skip)
            built, chunks = work.add(path)
        except BaseException:
            sink.abandon()
            raise
        return Added(built.cid, work.done, chunks, sink.finish())


def hash_path(
    path: Path,
    progress: Progress | None = None,
    *,
    preserve_mode: bool = False,
    skip: Collection[str] = (),
    beside: Blockstore | None = None,
) -> Added:
    """What `add_path` would name it, without keeping anything.

    Args:
        path: As `add_path`.
        progress: As `add_path`.
        preserve_mode: As `add_path`.
        skip: As `add_path`.
        beside: The store against which what is new is counted; it is only read.

    Raises:
        ManifestError: As `add_path`.
    """
    size = content_size(path, skip)
    sink = _NoSink() if beside is None else _MissingSink(beside)
    work = _Import(sink, size, progress, preserve_mode=preserve_mode, skip=skip)
    built, chunks = work.add(path)
    return Added(built.cid, work.done, chunks, sink.size)


def content_size(path: Path, skip: Collection[str] = ()) -> int:
    """Bytes of all files at and below a path, without those of some names directly in it.

    Raises:
        ManifestError: Something there cannot be published.
    """
    path = path.resolve(strict=True)
    if _kind(path, status := path.stat()) == stat.S_IFREG:
        return status.st_size
    return sum(_folder_sizes(path, MAX_FOLDER_DEPTH, skip))


def _folder_sizes(folder: Path, depth: int, skip: Collection[str] = ()) -> Iterator[int]:
    _check_depth(folder, depth)
    with os.scandir(folder) as found:
        for entry in found:
            if entry.name in skip:
                continue
            status = entry.stat(follow_symlinks=False)
            kind = _kind(Path(entry.path), status)
            if kind == stat.S_IFDIR:
                yield from _folder_sizes(Path(entry.path), depth - 1)
            elif kind == stat.S_IFREG:
                yield status.st_size


class _Sink(Protocol):
    def begin(self, path: Path, status: os.stat_result) -> None: ...
    def put(self, cid: Cid, data: bytes) -> None: ...


class _NoSink:
    size = 0

    def begin(self, path: Path, status: os.stat_result) -> None:
        """Where a chunk came from does not matter."""

    def put(self, cid: Cid, data: bytes) -> None:
        """Keep nothing."""


class _MissingSink(_NoSink):
    """Counts what the store does not hold."""

    def __init__(self, store: Blockstore) -> None:
        self._store = store
        self._seen: set[Cid] = set()
        self.size = 0

    def put(self, cid: Cid, data: bytes) -> None:
        if cid not in self._seen and not self._store.has(cid):
            self._seen.add(cid)
            self.size += len(data)


class _StoreSink(_NoSink):
    """Hands chunks to a thread that puts them into the store."""

    def __init__(self, store: Blockstore, reservation: Reservation) -> None:
        self._store = store
        self._reservation = reservation
        self._queue: queue.Queue[tuple[Cid, bytes] | None] = queue.Queue(MAX_QUEUED_CHUNKS)
        self._failure: BaseException | None = None
        self._new_bytes = 0
        self._thread = threading.Thread(target=self._write, name="swarm-add", daemon=True)
        self._thread.start()

    def put(self, cid: Cid, data: bytes) -> None:
        if self._failure is not None:
            raise self._failure
        self._queue.put((cid, data))

    def finish(self) -> int:
        """Wait for the disk; the bytes that were new."""
        self.abandon()
        if self._failure is not None:
            raise self._failure
        return self._new_bytes

    def abandon(self) -> None:
        """Write what is queued and end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _write(self) -> None:
        chunks = iter(self._queue.get, None)
        try:
            self._new_bytes = self._store.put_many(chunks, self._reservation)
        except BaseException as error:  # noqa: BLE001 raised again in the thread that adds
            self._failure = error
            for _ in chunks:  # the adding thread must not wait for a place in the queue
                pass


class _Import:
    """One walk over a path.

    Attributes:
        done: Bytes of content so far.
    """

    def __init__(
        self,
        sink: _Sink,
        total: int,
        progress: Progress | None,
        *,
        preserve_mode: bool = False,
        skip: Collection[str] = (),
    ) -> None:
        self._sink = sink
        self._skip = skip
        self._preserve_mode = preserve_mode
        self._total = total
        self._progress = progress
        self.done = 0
        self._chunks = 0

    def add(self, path: Path) -> tuple[Built, int]:
        """The root of what is at the path, and how many chunks it took."""
        path = path.resolve(strict=True)
        if _kind(path, path.stat()) == stat.S_IFREG:
            return self._file(path), self._chunks
        return self._folder(path, MAX_FOLDER_DEPTH, self._skip), self._chunks

    def _folder(self, folder: Path, depth: int, skip: Collection[str] = ()) -> Built:
        _check_depth(folder, depth)
        links = []
        with os.scandir(folder) as found:
            names = sorted(
                (entry.name for entry in found if entry.name not in skip), key=os.fsencode
            )
        for name in names:
            _check_name(folder, name)
            path = folder / name
            kind = _kind(path, path.lstat())
            if kind == stat.S_IFDIR:
                built = self._folder(path, depth - 1)
            elif kind == stat.S_IFLNK:
                built = self._link(path, MAX_FOLDER_DEPTH - depth)
            else:
                built = self._file(path)
            links.append(Link(built.cid, name, built.tree))
        return self._folder_of(links, self._mode(folder.stat()))

    def _folder_of(self, links: list[Link], mode: int | None = None) -> Built:
        built, block = folder_node(links, mode)
        if len(block) > FOLDER_NODE_BYTES:
            return hamt.build(links, self._emit, mode)
        self._emit(built.cid, block)
        return built

    def _link(self, path: Path, folders: int) -> Built:
        try:
            target = os.readlink(path)  # noqa: PTH115 - Path would drop `./` and so change the name
            built, block = symlink_node(check_target(target, folders))
        except ManifestError as error:
            message = f"{path} cannot be published: {error}"
            raise ManifestError(message) from error
        self._emit(built.cid, block)
        return built

    def _mode(self, status: os.stat_result) -> int | None:
        return stat.S_IMODE(status.st_mode) & MODE_BITS if self._preserve_mode else None

    def _file(self, path: Path) -> Built:
        levels: list[list[Built]] = [[]]
        # O_NOFOLLOW and O_NONBLOCK: what was a file a moment ago may be a link or a pipe by now.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            status = os.fstat(descriptor)
            if _kind(path, status) != stat.S_IFREG:
                raise _changed(path)
            self._sink.begin(path, status)
            for size in leaf_sizes(file, path.name, status.st_size):
                leaf = read_exactly(file, size)
                if len(leaf) != size:
                    raise _changed(path)
                self._leaf(levels, leaf)
            if file.read(1) or FileState.of(os.fstat(descriptor)) != FileState.of(status):
                raise _changed(path)
        if levels == [[]]:
            self._leaf(levels, b"")
        return self._top(levels, self._mode(status))

    def _leaf(self, levels: list[list[Built]], leaf: bytes) -> None:
        cid = cids.of_raw(leaf)
        self._emit(cid, leaf)
        self.done += len(leaf)
        if self._progress is not None:
            self._progress(self.done, max(self.done, self._total))
        self._push(levels, 0, Built(cid, len(leaf), len(leaf)))

    def _push(self, levels: list[list[Built]], level: int, node: Built) -> None:
        """Append to a level; a full level becomes one node above when the next one comes."""
        if len(levels) == level:
            levels.append([])
        if len(levels[level]) == FILE_LINKS:
            self._close(levels, level)
        levels[level].append(node)

    def _close(self, levels: list[list[Built]], level: int, mode: int | None = None) -> None:
        built, block = file_node(levels[level], mode)
        levels[level] = []
        self._emit(built.cid, block)
        self._push(levels, level + 1, built)

    def _top(self, levels: list[list[Built]], mode: int | None = None) -> Built:
        level = 0
        while level + 1 < len(levels):
            self._close(levels, level)
            level += 1
        if len(levels[level]) == 1 and mode in {None, FILE_MODE}:
            return levels[level][0]
        # A mode stands in the root alone; a leaf is bytes and nothing else, so it gets a node above.
        self._close(levels, level, mode)
        return levels[level + 1][0]

    def _emit(self, cid: Cid, block: bytes) -> None:
        self._chunks += 1
        self._sink.put(cid, block)


def _kind(path: Path, status: os.stat_result) -> int:
    kind = stat.S_IFMT(status.st_mode)
    if kind not in {stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK}:
        message = f"{path} is neither a file, a folder nor a link, and cannot be published"
        raise ManifestError(message)
    return kind


def _check_name(folder: Path, name: str) -> None:
    try:
        check_name(name)
    except ManifestError as error:
        message = f"{folder} cannot be published: {error}"
        raise ManifestError(message) from error


def _check_depth(folder: Path, depth: int) -> None:
    if depth == 0:
        message = f"{folder} is nested deeper than {MAX_FOLDER_DEPTH} folders"
        raise ManifestError(message)


def _changed(path: Path) -> ManifestError:
    return ManifestError(f"{path} changed while it was read")
