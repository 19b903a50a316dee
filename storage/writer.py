"""How chunks get to the disk: appended, made durable, and only then known.

Appending and flushing have a lock each, so that while one thread waits for the disk others append, and one flush makes
durable and visible what all of them wrote.
A compaction moves chunks in the same way: a chunk is appended again, and the flush that makes the copy durable gives
the index its new place in the same transaction that says how far the copy's segment is known. So a crash leaves an
index that knows the old place, or the new one, or that the new one is still to be read.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from storage.errors import DiskFullError, StorageError
from storage.quota import CHUNK_OVERHEAD_BYTES, INDEX_ROW_BYTES, RECORD_OVERHEAD_BYTES
from storage.segments import Packed, SegmentLog, pack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from storage.cid import Cid
    from storage.index import ChunkIndex, Place
    from storage.quota import Quota, Reservation


class Writer:
    """Everything that changes the segments of one store; thread safe.

    Attributes:
        broken: Why nothing is written until the store is opened again, if that is so.
    """

    def __init__(self, log: SegmentLog, index: ChunkIndex, quota: Quota) -> None:
        self._log = log
        self._index = index
        self._quota = quota
        self._append_lock = threading.Lock()
        self._flush_lock = threading.Lock()
        self._pending: dict[Cid, Place] = {}
        self._dirty: set[int] = set()
        self._appended = 0
        self._flushed = 0
        self._closed = False
        self.broken: str | None = None

    def end(self) -> int:
        """The place, as one number, behind everything that was appended."""
        with self._append_lock:
            return self._log.end()

    def append(self, batch: dict[Cid, bytes | memoryview], reservation: Reservation | None) -> int:
        """Append what is not held yet; `flush` makes it durable and known.

        Returns:
            The bytes of chunks that were new.

        Raises:
            QuotaError: No room; nothing was written.
        """
        packed = [pack(cid, batch[cid]) for cid in self._index.missing(batch)]
        with self._append_lock:
            self._check_open()
            absent = set(self._index.missing(chunk.cid for chunk in packed)) - self._pending.keys()
            fresh = [chunk for chunk in packed if chunk.cid in absent]
            size = sum(len(chunk.data) for chunk in fresh)
            amount = size + len(fresh) * CHUNK_OVERHEAD_BYTES
            self._quota.spend(amount, reservation)
            self._write(fresh, amount)
        return size

    def move(self, chunks: Sequence[tuple[Packed, Place]]) -> None:
        """Append chunks that lie at other places, and flush them; not those that were forgotten meanwhile."""
        with self._append_lock:
            self._check_open()
            now = self._index.find_many([chunk.cid for chunk, _ in chunks])
            lasting = [chunk for (chunk, place), at in zip(chunks, now, strict=True) if at == place]
            amount = sum(RECORD_OVERHEAD_BYTES + len(chunk.data) for chunk in lasting)
            self._quota.overdraw(amount)
            self._write(lasting, amount)
        self.flush()

    def forget(self, cid: Cid) -> bool:
        """Hold a chunk no longer, which is not on its way to another place; whether it was held."""
        with self._append_lock:
            place = self._index.find(cid)
            if place is None or cid in self._pending or not self._index.remove(cid, place):
                return False
        self._quota.refund(INDEX_ROW_BYTES)
        return True

    def flush(self) -> None:
        """Make what was appended before this call durable and visible; one thread does it for all."""
        target = self._appended
        with self._flush_lock:
            if self._flushed >= target:
                return
            with self._append_lock:
                if self.broken is not None:
                    raise StorageError(self.broken)
                rows = list(self._pending.items())
                sizes = self._log.sizes()
                ends = {segment: sizes[segment] for segment in self._dirty}
                self._dirty.clear()
                target = self._appended
            try:
                self._log.sync(ends)
                self._index.add(rows, ends)
            except DiskFullError:
                # The bytes are safe, and the next flush may find room for their rows.
                with self._append_lock:
                    self._dirty.update(ends)
                raise
            except (OSError, StorageError) as error:
                # What the disk kept is not known after a failed sync, so nothing more is promised until it is read again.
                self.broken = f"the disk failed; open the store again: {error}"
                raise StorageError(self.broken) from error
            with self._append_lock:
                for cid, place in rows:
                    if self._pending[cid] == place:
                        del self._pending[cid]
            self._flushed = target

    def seal(self) -> None:
        """Append to a new segment from now on."""
        with self._append_lock:
            self._check_open()
            try:
                self._log.seal()
            except OSError as error:
                message = f"the disk refused to write: {error}"
                raise StorageError(message) from error

    def remove_segment(self, segment: int) -> int:
        """Remove a segment in which no chunk lies any more; returns its bytes.

        Raises:
            StorageError: One does.
        """
        with self._flush_lock, self._append_lock:
            self._check_open()
            if self._index.has_segment(segment) or any(
                place.segment == segment for place in self._pending.values()
            ):
                message = f"segment {segment} is not empty"
                raise StorageError(message)
            before = self._log.size
            try:
                self._log.remove(segment)
            except OSError as error:
                message = f"the disk refused to remove segment {segment}: {error}"
                raise StorageError(message) from error
            finally:
                self._quota.refund(before - self._log.size)
            self._index.forget_segment(segment)
        return before - self._log.size

    def close(self) -> bool:
        """Write what is left; false if it was closed before."""
        with self._append_lock:
            if self._closed:
                return False
            self._closed = True
        try:
            if self.broken is None:
                self.flush()
        finally:
            with self._flush_lock:
                self._log.close()
        return True

    def _check_open(self) -> None:
        if self._closed:
            message = "the store is closed"
            raise StorageError(message)
        if self.broken is not None:
            raise StorageError(self.broken)

    def _write(self, chunks: Sequence[Packed], amount: int) -> None:
        """Append under the lock, having spent `amount` on it."""
        try:
            places = self._log.append(chunks)
        except StorageError as error:
            self._quota.refund(amount)
            if self._log.broken:
                self.broken = str(error)
            raise
        for chunk, place in zip(chunks, places, strict=True):
            self._pending[chunk.cid] = place
            self._dirty.add(place.segment)
        self._appended += sum(1 + len(chunk.data) for chunk in chunks)
