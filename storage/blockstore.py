"""Where chunks are kept: the interface that every store has, and the store on a disk."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol, TypeAlias

from storage import cid as cids
from storage.chunks import check_chunk
from storage.cid import Cid
from storage.errors import (
    ChunkNotFoundError,
    CorruptChunkError,
    LogError,
    StorageError,
    StoreLockedError,
)
from storage.index import ChunkIndex, Place
from storage.pins import PinList
from storage.quota import CHUNK_OVERHEAD_BYTES, INDEX_ROW_BYTES, Quota, Reservation, Usage
from storage.segments import PREFIX_BYTES, DamagedRecordError, SegmentLog, pack, sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FORMAT = b"swarm blockstore 1\n"
BATCH_BYTES = 8 * 2**20
"""What one `put_many` holds in memory at a time."""
FLUSH_BYTES = 64 * 2**20
"""What one `put_many` writes at most before it makes it durable."""

Progress: TypeAlias = Callable[[int, int], None]
"""Called with (bytes done, bytes in total)."""
Pairs: TypeAlias = Iterable[tuple[Cid, bytes | memoryview]]


class Blockstore(Protocol):
    """A store of chunks by CID; many threads may call it at once."""

    def has(self, cid: Cid) -> bool:
        """Whether the chunk is held."""

    def missing(self, wanted: Iterable[Cid]) -> list[Cid]:
        """Those of `wanted` that are not held, each once, in their order."""

    def size(self, cid: Cid) -> int:
        """The chunk's length in bytes.

        Raises:
            ChunkNotFoundError: It is not held.
        """

    def get(self, cid: Cid) -> bytes:
        """The chunk's bytes, which hash to its CID.

        Raises:
            ChunkNotFoundError: It is not held.
            CorruptChunkError: What the disk gave back is not what was put; the chunk is then no longer held, so
                that it can be fetched again.
        """

    def put_many(
        self, pairs: Pairs, reservation: Reservation | None = None, *, verify: bool = False
    ) -> int:
        """Keep chunks; they survive a crash once this returns.

        Args:
            pairs: (CID, bytes); may be a generator, of which a bounded part is in memory at a time.
            reservation: Where to draw room from before what is free.
            verify: Hash the bytes; leave it false only where they were hashed already.

        Returns:
            The bytes of chunks that were not held before.

        Raises:
            ChunkTooLargeError: More than 2 MiB.
            CorruptChunkError: `verify` found bytes that do not hash to their CID.
            QuotaError: No room; chunks before this one may be held.
        """

    def reserve(self, size: int) -> Reservation:
        """Promise room for bytes before they are received; use it as a context manager.

        Raises:
            QuotaError: No room.
        """

    def pin(self, root: Cid, label: str) -> None:
        """Keep everything that the root names; a root pinned again takes the new label."""

    def unpin(self, root: Cid) -> None:
        """Allow the root to be collected; nothing happens if it was not pinned."""

    def pins(self) -> dict[Cid, str]:
        """The pinned roots and their labels."""

    def usage(self) -> Usage:
        """What is lent, used, reserved and free, in bytes."""

    def set_limit(self, limit_bytes: int) -> None:
        """Lend more or less; chunks that are held stay."""

    def verify(self, progress: Progress | None = None) -> list[Cid]:
        """Read everything again.

        Returns:
            The damaged chunks, which are then no longer held.
        """

    def close(self) -> None:
        """Write what is left and let go of the folder."""


class SegmentBlockstore:
    """The `Blockstore` on a disk: segment files with an index beside them.

        folder/format       which version of this layout it is
        folder/lock         held by the one process that has it open, with its pid
        folder/*.seg        the chunks (`storage.segments`)
        folder/index.db     where each lies; may be deleted, and is then made anew
        folder/pins.db      what is to be kept

    A write goes: room in the quota, append to the segment, fdatasync, row in the index, return.
    Appending and flushing have a lock each, so that while one thread waits for the disk others append, and one
    flush makes durable what all of them wrote.

    Args:
        folder: Where it lives; made if it is not there.
        limit_bytes: What it may use, with its index.

    Raises:
        StoreLockedError: Another process has it open.
        LogError: It was written by a version that this one does not know.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder_lock = _lock_folder(folder)
        try:
            _check_format(folder)
            self._log = SegmentLog(folder)
            self._index = _open_index(folder / "index.db")
            try:
                self._recover()
                self._pins = PinList(folder / "pins.db")
            except BaseException:
                self._index.close()
                raise
        except BaseException:
            os.close(self._folder_lock)
            raise
        count, _ = self._index.totals()
        self._quota = Quota(limit_bytes, self._log.size + count * INDEX_ROW_BYTES)
        self._append_lock = threading.Lock()
        self._flush_lock = threading.Lock()
        self._pending: dict[Cid, Place] = {}
        self._dirty: set[int] = set()
        self._appended = 0
        self._flushed = 0
        self._broken: str | None = None
        self._closed = False

    def has(self, cid: Cid) -> bool:
        return self._index.find(cid) is not None

    def missing(self, wanted: Iterable[Cid]) -> list[Cid]:
        return self._index.missing(wanted)

    def size(self, cid: Cid) -> int:
        return self._find(cid).length

    def get(self, cid: Cid) -> bytes:
        place = self._find(cid)
        try:
            return self._log.read(cid, place)
        except DamagedRecordError as error:
            self._forget(cid, place)
            raise CorruptChunkError(cids.text(cid)) from error

    def put_many(
        self, pairs: Pairs, reservation: Reservation | None = None, *, verify: bool = False
    ) -> int:
        added = 0
        unflushed = 0
        for batch in _batches(pairs, verify=verify):
            size = self._append(batch, reservation)
            added += size
            unflushed += size
            if unflushed >= FLUSH_BYTES:
                self._flush()
                unflushed = 0
        self._flush()
        return added

    def reserve(self, size: int) -> Reservation:
        return self._quota.reserve(size)

    def pin(self, root: Cid, label: str) -> None:
        self._pins.add(root, label)

    def unpin(self, root: Cid) -> None:
        self._pins.remove(root)

    def pins(self) -> dict[Cid, str]:
        return self._pins.all()

    def usage(self) -> Usage:
        return self._quota.usage()

    def set_limit(self, limit_bytes: int) -> None:
        self._quota.set_limit(limit_bytes)

    def verify(self, progress: Progress | None = None) -> list[Cid]:
        _, total = self._index.totals()
        done = 0
        bad = []
        for cid, place in self._index.rows():
            try:
                good = cids.matches(cid, self._log.read(cid, place))
            except DamagedRecordError:
                good = False
            if not good:
                bad.append(cid)
                self._forget(cid, place)
            done += place.length
            if progress is not None:
                progress(done, max(done, total))
        return bad

    def close(self) -> None:
        with self._append_lock:
            if self._closed:
                return
            self._closed = True
        try:
            if self._broken is None:
                self._flush()
        finally:
            with self._flush_lock:
                self._log.close()
                self._index.close()
                self._pins.close()
                os.close(self._folder_lock)

    def _find(self, cid: Cid) -> Place:
        place = self._index.find(cid)
        if place is None:
            raise ChunkNotFoundError(cids.text(cid))
        return place

    def _forget(self, cid: Cid, place: Place) -> None:
        if self._index.remove(cid, place):
            self._quota.refund(INDEX_ROW_BYTES)

    def _append(self, batch: dict[Cid, bytes | memoryview], reservation: Reservation | None) -> int:
        packed = [pack(cid, batch[cid]) for cid in self._index.missing(batch)]
        with self._append_lock:
            if self._closed:
                message = "the store is closed"
                raise StorageError(message)
            if self._broken is not None:
                raise StorageError(self._broken)
            absent = set(self._index.missing(chunk.cid for chunk in packed)) - self._pending.keys()
            fresh = [chunk for chunk in packed if chunk.cid in absent]
            size = sum(len(chunk.data) for chunk in fresh)
            amount = size + len(fresh) * CHUNK_OVERHEAD_BYTES
            self._quota.spend(amount, reservation)
            try:
                places = self._log.append(fresh)
            except StorageError as error:
                self._quota.refund(amount)
                if self._log.broken:
                    self._broken = str(error)
                raise
            for chunk, place in zip(fresh, places, strict=True):
                self._pending[chunk.cid] = place
                self._dirty.add(place.segment)
            self._appended += size + len(fresh)
        return size

    def _flush(self) -> None:
        """Make what was appended before this call durable and visible; one thread does it for all."""
        target = self._appended
        with self._flush_lock:
            if self._flushed >= target:
                return
            with self._append_lock:
                if self._broken is not None:
                    raise StorageError(self._broken)
                rows = list(self._pending.items())
                ends = {segment: self._log.sizes()[segment] for segment in self._dirty}
                self._dirty.clear()
                target = self._appended
            try:
                self._log.sync(ends)
                self._index.add(rows, ends)
            except (OSError, sqlite3.Error, StorageError) as error:
                # What the disk kept is not known after a failed sync, so nothing more is promised until it is read again.
                self._broken = f"the disk failed; open the store again: {error}"
                if isinstance(error, StorageError):
                    raise
                raise StorageError(self._broken) from error
            with self._append_lock:
                for cid, _ in rows:
                    del self._pending[cid]
            self._flushed = target

    def _recover(self) -> None:
        scanned = self._index.scanned()
        sizes = self._log.sizes()
        for segment in scanned.keys() - sizes.keys():
            self._index.forget_segment(segment)
        for segment, size in sizes.items():
            start = scanned.get(segment, 0)
            if start > size:
                self._index.remove_from(segment, size, PREFIX_BYTES)
            elif start < size:
                found = self._log.recover(segment, start)
                self._index.add(found.rows, {segment: self._log.sizes()[segment]})


def _batches(pairs: Pairs, *, verify: bool) -> Iterator[dict[Cid, bytes | memoryview]]:
    batch: dict[Cid, bytes | memoryview] = {}
    size = 0
    for cid, data in pairs:
        check_chunk(cid, data, verify=verify)
        batch[cid] = data
        size += len(data) + CHUNK_OVERHEAD_BYTES
        if size >= BATCH_BYTES:
            yield batch
            batch, size = {}, 0
    if batch:
        yield batch


def _lock_folder(folder: Path) -> int:
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise StoreLockedError(str(folder), holder or "unknown") from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
    return descriptor


def _check_format(folder: Path) -> None:
    path = folder / "format"
    if path.exists():
        found = path.read_bytes()[:64]
        if found != FORMAT:
            message = f"{folder} has the format {found!r}, and this version knows {FORMAT!r}"
            raise LogError(message)
        return
    if any(folder.glob("*.seg")):
        message = f"{folder} has segments and no file `format`"
        raise LogError(message)
    temporary = folder / "format.new"
    with temporary.open("wb") as file:
        file.write(FORMAT)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(folder)


def _open_index(path: Path) -> ChunkIndex:
    try:
        index = ChunkIndex(path)
        index.scanned()
        index.totals()
    except sqlite3.DatabaseError:
        # The index says nothing that the segments do not: a damaged one is made anew.
        for name in (path, path.with_name("index.db-wal"), path.with_name("index.db-shm")):
            name.unlink(missing_ok=True)
        index = ChunkIndex(path)
    return index
