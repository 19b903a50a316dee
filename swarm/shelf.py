"""Roots unpacked to files, as the worker reads them: datasets, pools, checkpoints, updates.

A shelf is a cache: every entry can be fetched and written again from its CID, so the least recently
used ones go when a new one needs their room; entries under a lease stay.
It never holds more than its limit, which counts files as they lie on the disk and not chunks: a small manifest
can name one chunk a million times, or a million empty files. The chunks themselves are in the store, whose quota counts them once
more until a collection takes those that nothing else keeps.
"""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from functools import partial
from stat import S_ISDIR
from typing import TYPE_CHECKING

import trio

from protocols.exchange.errors import ContentTooLargeError
from storage import cid as cids
from storage import unixfs
from storage.errors import CidError, ManifestError, QuotaError
from storage.importer import MAX_FOLDER_DEPTH
from storage.unixfs_nodes import Kind, read_node

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from pathlib import Path

    from protocols.exchange.service import ExchangeService
    from protocols.progress import Tell
    from storage.blockstore import Blockstore
    from storage.cid import Cid

DEFAULT_BYTES = 4 * 2**30
"""How much a shelf holds if not told otherwise."""
ENTRY_BYTES = 4096
"""What each file and folder counts beside its bytes."""


class Shelf:
    """A folder with one entry a root.

    Args:
        folder: Where the entries are; made if need be. What an unfinished write left there is removed.
        store: Where chunks are read from.
        exchange: Fetches what the store lacks.
        limit: Bytes of files that it may hold.

    Attributes:
        claim: Awaited when an entry counts and before it is written; raises QuotaError where there is no room for it.
    """

    def __init__(
        self, folder: Path, store: Blockstore, exchange: ExchangeService, limit: int = DEFAULT_BYTES
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._store = store
        self._exchange = exchange
        self._limit = limit
        self._locks: dict[Cid, trio.Lock] = {}
        self._users: Counter[Path] = Counter()
        self._removed = 0
        self.claim: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
        self._sizes: dict[Path, int] = {}
        """Bytes of each entry, the least recently used first; written and read by the event loop alone."""
        for path in sorted(folder.iterdir(), key=lambda one: one.lstat().st_mtime):
            if _is_entry(path):
                self._sizes[path] = _size_on_disk(path)
            else:
                _remove(path)

    @contextlib.contextmanager
    def lease(self) -> Iterator[Lease]:
        """What is taken through the lease stays on the shelf until the block ends."""
        lease = Lease(self)
        try:
            yield lease
        finally:
            self._users.subtract(lease.paths)
            self._users += Counter()  # drops those at zero

    async def take(
        self,
        root: Cid,
        providers: Sequence[str] | None = None,
        progress: Tell | None = None,
        *,
        max_bytes: int | None = None,
        is_file: bool = False,
    ) -> Path:
        """The path of a root's file or folder, fetched and unpacked if it is not there yet.

        Args:
            root: What to take.
            providers: Who is asked first; None looks for them.
            progress: Told (bytes here, bytes in total, from whom they come or why none do).
            max_bytes: Refuse content that is larger.
            is_file: Refuse what is no file. The one name that is then written is this node's own,
                so an OSError tells of its disk, and of nothing that a stranger made up.

        Raises:
            ContentNotFoundError: Nobody that was asked holds it.
            ContentTooLargeError: Its files have more bytes than `max_bytes`.
            ManifestError: It is malformed, or no file where one is asked for.
            QuotaError: It does not fit onto the shelf, into what this node lends, or beside the entries that are in use.
        """
        with self.lease() as lease:
            return await lease.take(root, providers, progress, max_bytes=max_bytes, is_file=is_file)

    async def _take(
        self,
        root: Cid,
        providers: Sequence[str] | None,
        progress: Tell | None,
        max_bytes: int | None,
        *,
        is_file: bool,
    ) -> Path:
        path = self.path(root)
        lock = self._locks.setdefault(root, trio.Lock())
        try:
            async with lock:
                if path not in self._sizes or not path.exists():
                    await self._unpack(root, path, providers, progress, max_bytes, is_file=is_file)
                elif is_file and not path.is_file():
                    raise _no_file(root)
                elif max_bytes is not None and self._sizes[path] > max_bytes:
                    raise ContentTooLargeError(root, self._sizes[path], max_bytes)
                self._sizes[path] = self._sizes.pop(path)
                with contextlib.suppress(OSError):
                    path.touch()
        finally:
            if not lock.locked() and not lock.statistics().tasks_waiting:
                self._locks.pop(root, None)
        return path

    @property
    def used(self) -> int:
        """Bytes of all entries."""
        return sum(self._sizes.values())

    def path(self, root: Cid) -> Path:
        """Where a root's entry is, or would be."""
        return self._folder / cids.text(root)

    async def _unpack(
        self,
        root: Cid,
        path: Path,
        providers: Sequence[str] | None,
        progress: Tell | None,
        max_bytes: int | None,
        *,
        is_file: bool,
    ) -> None:
        most = self._limit if max_bytes is None else min(max_bytes, self._limit)
        # Between what the fetch protects and what is written here, a collection could take it.
        with await trio.to_thread.run_sync(self._store.lease, "shelf", root):
            try:
                await self._fetch_and_write(root, path, providers, progress, most, is_file=is_file)
            except ContentTooLargeError as error:
                if max_bytes is not None and error.size > max_bytes:
                    raise ContentTooLargeError(root, error.size, max_bytes) from error
                raise QuotaError(error.size, self._limit) from error

    async def _fetch_and_write(
        self,
        root: Cid,
        path: Path,
        providers: Sequence[str] | None,
        progress: Tell | None,
        most: int,
        *,
        is_file: bool,
    ) -> None:
        await self._exchange.fetch(root, providers, progress, max_bytes=most)
        size = await trio.to_thread.run_sync(
            partial(_size_to_be, root, self._store, is_file=is_file)
        )
        if size > most:
            raise ContentTooLargeError(root, size, most)
        self._sizes.pop(path, None)
        gone = self._make_room(size)
        self._sizes[path] = size
        try:
            with trio.CancelScope(shield=True):  # what is off the shelf is counted no more
                for one in gone:
                    await trio.to_thread.run_sync(_remove, one)
            await self.claim()
            await trio.to_thread.run_sync(unixfs.write_path, root, self._store, path)
        except BaseException:
            self._sizes.pop(path, None)
            raise

    def _make_room(self, size: int) -> list[Path]:
        """Take entries off the shelf, the oldest first; where they are now, to be removed.

        Raises:
            QuotaError: What is in use leaves too little room.
        """
        free = self._limit - sum(self._sizes.values())
        victims = []
        for path, held in self._sizes.items():
            if free >= size:
                break
            if not self._users[path]:
                victims.append(path)
                free += held
        if free < size:
            raise QuotaError(size, max(0, free))
        return [self._take_off(path) for path in victims]

    def _take_off(self, path: Path) -> Path:
        """Where an entry that is on the shelf no more lies now, if a person has not removed it."""
        del self._sizes[path]
        self._removed += 1
        aside = self._folder / f".removed-{self._removed}"
        with contextlib.suppress(FileNotFoundError):
            path.replace(aside)
        return aside


class Lease:
    """Takes entries that stay until the lease ends.

    Attributes:
        paths: What it holds.
    """

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self.paths: list[Path] = []

    def has(self, root: Cid) -> bool:
        """Whether a root is on the shelf already."""
        return self._shelf.path(root) in self._shelf._sizes

    async def take(
        self,
        root: Cid,
        providers: Sequence[str] | None = None,
        progress: Tell | None = None,
        *,
        max_bytes: int | None = None,
        is_file: bool = False,
    ) -> Path:
        """As `Shelf.take`."""
        path = self._shelf.path(root)
        self.paths.append(path)
        self._shelf._users[path] += 1
        return await self._shelf._take(root, providers, progress, max_bytes, is_file=is_file)

    async def give_up(self) -> None:
        """Take off the shelf what nobody else uses of this, so that it is unpacked anew: a disk can change what lies there."""
        shelf = self._shelf
        own = [path for path, uses in Counter(self.paths).items() if shelf._users[path] == uses]
        gone = [shelf._take_off(path) for path in own if path in shelf._sizes]
        with trio.CancelScope(shield=True):  # what is off the shelf is counted no more
            for one in gone:
                await trio.to_thread.run_sync(_remove, one)


def _is_entry(path: Path) -> bool:
    try:
        cids.parse(path.name)
    except CidError:
        return False
    return not path.is_symlink()


def _size_on_disk(path: Path) -> int:
    """What `_size_to_be` said before it was written."""
    found = path.rglob("*") if path.is_dir() else (path,)
    return sum(
        ENTRY_BYTES + (0 if S_ISDIR((status := one.lstat()).st_mode) else status.st_size)
        for one in found
    )


def _size_to_be(root: Cid, store: Blockstore, *, is_file: bool = False) -> int:
    """Bytes of the files of a root that the store holds, each counted as often as it stands in the tree.

    Raises:
        ManifestError: It is malformed, has too many entries, or is no file where it must be one.
    """
    node = read_node(root, store.get(root))
    if node.kind is Kind.FILE:
        return node.size + ENTRY_BYTES
    if is_file:
        raise _no_file(root)
    return _Tree(root, store).size(root, 0)[0]


class _Tree:
    """What the files and folders below a root count; each folder is read once, under however many names it stands."""

    def __init__(self, root: Cid, store: Blockstore) -> None:
        self._root = root
        self._store = store
        self._known: dict[Cid, tuple[int, int]] = {}
        self._looked_at = 0

    def size(self, folder: Cid, depth: int) -> tuple[int, int]:
        """Bytes of what is in a folder, and how many entries.

        Raises:
            ManifestError: It is malformed, has too many entries, or is nested too deep.
        """
        if folder in self._known:
            return self._known[folder]
        if depth == MAX_FOLDER_DEPTH:
            message = f"{cids.text(self._root)} is nested deeper than {MAX_FOLDER_DEPTH} folders"
            raise ManifestError(message)
        size = entries = 0
        for entry in unixfs.listing(folder, self._store):
            below = entry.size, 0
            if entry.kind == "folder":
                below = self.size(entry.cid, depth + 1)
            size += ENTRY_BYTES + below[0]
            entries += 1 + below[1]
            self._looked_at += 1
            if max(entries, self._looked_at) > unixfs.MAX_ENTRIES:
                message = f"{cids.text(self._root)} has more than {unixfs.MAX_ENTRIES:,} entries"
                raise ManifestError(message)
        self._known[folder] = size, entries
        return size, entries


def _no_file(root: Cid) -> ManifestError:
    return ManifestError(f"{cids.text(root)} is no file")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
