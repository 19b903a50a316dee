"""The store on a disk, and the interface that every store has (`storage.contract`)."""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from storage import cid as cids
from storage import folder as folders
from storage.chunks import check_chunk
from storage.contract import Beside, Blockstore, Checked, Pairs, Progress
from storage.errors import (
    ChangedFileError,
    ChunkNotFoundError,
    CorruptChunkError,
    StorageError,
    UnreadableFileError,
)
from storage.files import DISK, Files, mount_of
from storage.folder import FORMAT
from storage.index import ChunkIndex
from storage.leases import Ends, Leases
from storage.pins import PinList
from storage.quota import (
    CHUNK_OVERHEAD_BYTES,
    INDEX_ROW_BYTES,
    Quota,
    Usage,
    default_keep_free,
)
from storage.references import ReferenceList
from storage.segments import PREFIX_BYTES, SEGMENT_BYTES, DamagedRecordError, SegmentLog
from storage.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from storage.cid import Cid
    from storage.index import Place
    from storage.leases import Lease
    from storage.quota import Reservation
    from storage.references import Reference

__all__ = ["FORMAT", "Beside", "Blockstore", "Checked", "Pairs", "Progress", "SegmentBlockstore"]

BATCH_BYTES = 8 * 2**20
"""What one `put_many` holds in memory at a time."""
FLUSH_BYTES = 64 * 2**20
"""What one `put_many` writes at most before it makes it durable."""
FLUSH_CHUNKS = 2**16
"""Likewise, where they are small: until then each is remembered in memory."""


class SegmentBlockstore:
    """The `Blockstore` on a disk: segment files with an index beside them.

        folder/format         which version of this layout it is
        folder/lock           held by the one process that has it open, with its pid
        folder/*.seg          the chunks (`storage.segments`)
        folder/index.db       where each lies; may be deleted, and is then made anew
        folder/pins.db        what is to be kept, and what was found damaged (`storage.pins`)
        folder/references.db  chunks in the user's own files (`storage.references`)

    A write goes: room in the quota, append to the segment, fdatasync, row in the index, return (`storage.writer`).
    What is dead is found and removed by `storage.collection`.

    Args:
        folder: Where it lives; made if it is not there.
        limit_bytes: What it may use, with its index.
        keep_free: What stays free on the disk, bytes; by default 5 % of it or 10 GB, whichever is less.
        files: How the segments are written; a test puts a failing disk here.
        segment_bytes: How large a segment grows.

    Attributes:
        beside: Where chunks are looked for that lie neither in segments nor in the user's files; None: nowhere.

    Raises:
        StoreLockedError: Another process has it open.
        LogError: It was written by a version that this one does not know.
    """

    def __init__(
        self,
        folder: Path,
        limit_bytes: int,
        *,
        keep_free: int | None = None,
        files: Files = DISK,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        disk_bytes, _ = files.space(folder)
        if keep_free is None:
            keep_free = default_keep_free(disk_bytes)
        with ExitStack() as opened:
            opened.callback(os.close, folders.lock(folder))
            folders.check_format(folder, files)
            self.log = SegmentLog(folder, files, segment_bytes)
            self.index = _open_index(folder / "index.db")
            opened.callback(self.index.close)
            _recover(self.log, self.index)
            self._pins = PinList(folder / "pins.db")
            opened.callback(self._pins.close)
            self.references = ReferenceList(folder / "references.db")
            opened.callback(self.references.close)
            rows = self.index.totals()[0] + self.references.count
            self.quota = Quota(
                limit_bytes,
                self.log.size + rows * INDEX_ROW_BYTES,
                keep_free=keep_free,
                disk_free=lambda: files.space(folder)[1],
            )
            self._opened = opened.pop_all()
        self._folder = folder
        self.writer = Writer(self.log, self.index, self.quota)
        self.leases = Leases(lambda: Ends(self.writer.end(), self.references.end()))
        self._collected = Usage(0, 0, 0, 0)
        self._closed = False
        self.beside: Beside | None = None
        self.collecting = threading.Lock()

    def has(self, cid: Cid) -> bool:
        self.leases.touch((cid,))
        if self.index.find(cid) is not None or self.references.has(cid):
            return True
        return self.beside is not None and self.beside.length(cid) is not None

    def missing(self, wanted: Iterable[Cid], *, count_on: bool = True) -> list[Cid]:
        asked = list(dict.fromkeys(wanted))
        if count_on:
            self.leases.touch(asked)
        absent = self.references.missing(self.index.missing(asked))
        beside = self.beside
        return absent if beside is None else [one for one in absent if beside.length(one) is None]

    def size(self, cid: Cid) -> int:
        place = self.index.find(cid)
        if place is not None:
            return place.length
        reference = self.references.find(cid)
        if reference is not None:
            return reference[1]
        length = None if self.beside is None else self.beside.length(cid)
        if length is None:
            raise ChunkNotFoundError(cids.text(cid))
        return length

    def get(self, cid: Cid) -> bytes:
        place = self.index.find(cid)
        while place is not None:
            try:
                return self.log.read(cid, place)
            except DamagedRecordError as error:
                now = self.index.find(cid)
                if now == place:
                    self.forget(cid, place)
                    raise CorruptChunkError(cids.text(cid)) from error
                place = now  # a compaction has moved it
        return self._get_in_place(cid)

    def put_many(
        self, pairs: Pairs, reservation: Reservation | None = None, *, verify: bool = False
    ) -> int:
        added = 0
        unflushed = chunks = 0
        mended: set[Cid] = set()
        for batch in _batches(pairs, verify=verify):
            self.leases.touch(batch)
            size = self.writer.append(batch, reservation)
            mended |= self._pins.damaged & batch.keys()
            added += size
            unflushed += size
            chunks += len(batch)
            if unflushed >= FLUSH_BYTES or chunks >= FLUSH_CHUNKS:
                self.writer.flush()
                unflushed = chunks = 0
        self.writer.flush()
        if mended:
            self._pins.mend(mended)
        return added

    def reserve(self, size: int) -> Reservation:
        return self.quota.reserve(size)

    def pin(self, root: Cid, label: str) -> None:
        self._pins.add(root, label)
        self.leases.root_added()

    def unpin(self, root: Cid) -> None:
        self._pins.remove(root)

    def pins(self) -> dict[Cid, str]:
        return self._pins.all()

    def hold(self, root: Cid, label: str) -> None:
        self._pins.hold(root, label)
        self.leases.root_added()

    def release(self, root: Cid, label: str) -> None:
        self._pins.release(root, label)

    def holds(self) -> list[tuple[Cid, str]]:
        return self._pins.holds()

    def lease(self, label: str, root: Cid | None = None) -> Lease:
        return self.leases.open(label, root)

    def usage(self) -> Usage:
        return replace(
            self.quota.usage(),
            in_place=self.references.size,
            pinned=self._collected.pinned,
            held=self._collected.held,
            reclaimable=self._collected.reclaimable,
        )

    def is_on(self, mount: Path) -> bool:
        """Whether the chunks lie on the file system that is mounted there."""
        return mount_of(self._folder) == mount

    def set_limit(self, limit_bytes: int) -> None:
        self.quota.set_limit(limit_bytes)

    def verify(self, progress: Progress | None = None) -> list[Cid]:
        total = self.index.totals()[1] + self.references.size
        done = 0
        bad = []
        for checked in self.check():
            if not checked.is_good:
                bad.append(checked.cid)
            done += checked.length
            if progress is not None:
                progress(done, max(done, total))
        return bad

    def check(self, after: int = 0) -> Iterator[Checked]:
        # Positions count from 1, and references are told from places by their sign.
        if after >= 0:
            for cid, place in self.index.rows(after - 1):
                good = self._is_good(cid, place)
                if good is not None:
                    yield Checked(place.key + 1, cid, place.length, good)
        for page in self.references.rows(after=max(0, -after)):
            for number, cid, length in page:
                if self.index.find(cid) is not None:
                    continue  # a copy is held, and has been read
                try:
                    good = cids.matches(cid, self._get_in_place(cid))
                except (ChangedFileError, ChunkNotFoundError):
                    good = False
                yield Checked(-number, cid, length, good)

    def damaged(self) -> frozenset[Cid]:
        return self._pins.damaged

    def add_references(self, references: Sequence[Reference]) -> int:
        fresh = set(self.missing(each.cid for each in references))
        self.quota.spend(len(references) * INDEX_ROW_BYTES)
        added = 0
        try:
            added = self.references.add(references)
        finally:
            self.quota.refund((len(references) - added) * INDEX_ROW_BYTES)
        self._pins.mend(each.cid for each in references)
        return sum(each.length for each in references if each.cid in fresh)

    def changed_files(self) -> list[str]:
        return self.references.changed_files()

    def forget(self, cid: Cid, place: Place) -> None:
        """Hold a chunk no longer whose record is damaged; its room comes back with a compaction."""
        self._pins.damage(cid)
        if self.index.remove(cid, place):
            self.quota.refund(INDEX_ROW_BYTES)

    def let_go(self, cid: Cid) -> bool:
        """Hold a chunk in the segments no longer, because it lies elsewhere; its room comes back with a compaction.

        Returns:
            Whether it was; not where it was not there, or is being moved by a compaction.
        """
        return self.writer.forget(cid)

    def mend(self, cids_: Iterable[Cid]) -> None:
        """Forget that chunks were damaged, which nothing names any more."""
        self._pins.mend(cids_)

    def count_collected(self, pinned: int, held: int, reclaimable: int) -> None:
        """Remember what a collection found, in bytes, for `usage`."""
        self._collected = Usage(0, 0, 0, 0, 0, pinned, held, reclaimable)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        with self._opened:
            self.writer.close()

    def _is_good(self, cid: Cid, place: Place) -> bool | None:
        """Whether a chunk is what it was; None if it lies elsewhere by now."""
        try:
            if cids.matches(cid, self.log.read(cid, place)):
                return True
        except DamagedRecordError:
            pass
        if self.index.find(cid) != place:
            return None
        self.forget(cid, place)
        return False

    def _get_in_place(self, cid: Cid) -> bytes:
        try:
            data = self.references.get(
                cid, lambda dropped: self.quota.refund(dropped * INDEX_ROW_BYTES)
            )
        except UnreadableFileError:
            self._pins.damage(cid)  # until it can be read again
            raise
        except ChangedFileError:
            self._pins.damage(cid)
            raise
        if data is not None:
            if cid in self._pins.damaged:
                self._pins.mend((cid,))
            return data
        if self.beside is None:
            raise ChunkNotFoundError(cids.text(cid))
        try:
            return self.beside.get(cid)
        except CorruptChunkError:
            self._pins.damage(cid)  # until it is put again
            raise


def _recover(log: SegmentLog, index: ChunkIndex) -> None:
    """Let the index know what the segments hold, reading only what it does not know."""
    scanned = index.scanned()
    sizes = log.sizes()
    for segment in scanned.keys() - sizes.keys():
        index.forget_segment(segment)
    for segment, size in sorted(sizes.items()):
        start = scanned.get(segment, 0)
        if start > size:
            index.remove_from(segment, size, PREFIX_BYTES)
        elif start < size:
            found = log.recover(segment, start)
            index.add(found.rows, {segment: log.sizes()[segment]})


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


def _open_index(path: Path) -> ChunkIndex:
    try:
        index = ChunkIndex(path)
        try:
            index.check()
        except BaseException:
            index.close()
            raise
    except (sqlite3.DatabaseError, UnicodeDecodeError, StorageError):
        # The index says nothing that the segments do not: a damaged one is made anew.
        for name in (path, path.with_name("index.db-wal"), path.with_name("index.db-shm")):
            name.unlink(missing_ok=True)
        index = ChunkIndex(path)
    return index
