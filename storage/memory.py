"""A store that lives in memory: for tests, and for manifests that need no disk."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from storage import cid as cids
from storage.chunks import check_chunk
from storage.errors import ChunkNotFoundError, CorruptChunkError
from storage.quota import CHUNK_OVERHEAD_BYTES, Quota, Reservation, Usage, cost

if TYPE_CHECKING:
    from collections.abc import Iterable

    from storage.blockstore import Pairs, Progress
    from storage.cid import Cid


class MemoryBlockstore:
    """A `storage.blockstore.Blockstore` without a disk; it forgets when the process ends.

    Attributes:
        chunks: What is held; a test may damage it on purpose.
    """

    def __init__(self, limit_bytes: int = 2**40) -> None:
        self.chunks: dict[Cid, bytes] = {}
        self._pins: dict[Cid, str] = {}
        self._quota = Quota(limit_bytes)
        self._lock = threading.RLock()

    def has(self, cid: Cid) -> bool:
        with self._lock:
            return cid in self.chunks

    def missing(self, wanted: Iterable[Cid]) -> list[Cid]:
        with self._lock:
            return [cid for cid in dict.fromkeys(wanted) if cid not in self.chunks]

    def size(self, cid: Cid) -> int:
        with self._lock:
            if cid not in self.chunks:
                raise ChunkNotFoundError(cids.text(cid))
            return len(self.chunks[cid])

    def get(self, cid: Cid) -> bytes:
        with self._lock:
            data = self.chunks.get(cid)
            if data is None:
                raise ChunkNotFoundError(cids.text(cid))
            if not cids.matches(cid, data):
                self._forget(cid)
                raise CorruptChunkError(cids.text(cid))
            return data

    def put_many(
        self, pairs: Pairs, reservation: Reservation | None = None, *, verify: bool = False
    ) -> int:
        added = 0
        for cid, data in pairs:
            check_chunk(cid, data, verify=verify)
            with self._lock:
                if cid not in self.chunks:
                    self._quota.spend(cost(len(data)), reservation)
                    self.chunks[cid] = bytes(data)
                    added += len(data)
        return added

    def reserve(self, size: int) -> Reservation:
        return self._quota.reserve(size)

    def pin(self, root: Cid, label: str) -> None:
        with self._lock:
            self._pins[root] = label

    def unpin(self, root: Cid) -> None:
        with self._lock:
            self._pins.pop(root, None)

    def pins(self) -> dict[Cid, str]:
        with self._lock:
            return dict(self._pins)

    def usage(self) -> Usage:
        return self._quota.usage()

    def set_limit(self, limit_bytes: int) -> None:
        self._quota.set_limit(limit_bytes)

    def verify(self, progress: Progress | None = None) -> list[Cid]:
        with self._lock:
            held = list(self.chunks.items())
        total = sum(len(data) for _, data in held)
        done = 0
        bad = []
        for cid, data in held:
            if not cids.matches(cid, data):
                bad.append(cid)
                with self._lock:
                    self._forget(cid)
            done += len(data)
            if progress is not None:
                progress(done, total)
        return bad

    def close(self) -> None:
        """Nothing to close: the bytes stay until the object goes."""

    def _forget(self, cid: Cid) -> None:
        data = self.chunks.pop(cid, None)
        if data is not None:
            self._quota.refund(len(data) + CHUNK_OVERHEAD_BYTES)
