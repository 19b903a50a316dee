"""A store that lives in memory: for tests, and for manifests that need no disk."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from storage import cid as cids
from storage.chunks import check_chunk
from storage.contract import Checked
from storage.errors import (
    ChangedFileError,
    ChunkNotFoundError,
    CorruptChunkError,
    UnreadableFileError,
)
from storage.leases import Ends, Lease, Leases
from storage.pins import check_label
from storage.quota import CHUNK_OVERHEAD_BYTES, Quota, Reservation, Usage, cost
from storage.references import read_in_place, state_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from storage.cid import Cid
    from storage.contract import Pairs, Progress
    from storage.references import Reference


class MemoryBlockstore:
    """A `storage.contract.Blockstore` without a disk; it forgets when the process ends, and collects nothing.

    Attributes:
        chunks: What is held; a test may damage it on purpose.
    """

    def __init__(self, limit_bytes: int = 2**40) -> None:
        self.chunks: dict[Cid, bytes] = {}
        self._pins: dict[Cid, str] = {}
        self._holds: set[tuple[Cid, str]] = set()
        self._damaged: frozenset[Cid] = frozenset()
        self._references: dict[Cid, Reference] = {}
        self._away: set[Cid] = set()
        self._leases = Leases(lambda: Ends(0, 0))
        self._quota = Quota(limit_bytes)
        self._lock = threading.RLock()

    def has(self, cid: Cid) -> bool:
        with self._lock:
            if cid in self.chunks or cid not in self._away:
                return cid in self.chunks or cid in self._references
            with suppress(CorruptChunkError, OSError):
                read_in_place(self._references[cid])
                return True
            return False

    def missing(self, wanted: Iterable[Cid], *, count_on: bool = True) -> list[Cid]:
        with self._lock:
            return [cid for cid in dict.fromkeys(wanted) if not self.has(cid)]

    def size(self, cid: Cid) -> int:
        with self._lock:
            if cid in self.chunks:
                return len(self.chunks[cid])
            if cid in self._references:
                return self._references[cid].length
            raise ChunkNotFoundError(cids.text(cid))

    def get(self, cid: Cid) -> bytes:
        with self._lock:
            data = self.chunks.get(cid)
            if data is None:
                return self._get_in_place(cid)
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
                    self._damaged -= {cid}
                    added += len(data)
        return added

    def reserve(self, size: int) -> Reservation:
        return self._quota.reserve(size)

    def pin(self, root: Cid, label: str) -> None:
        check_label(label)
        with self._lock:
            self._pins[root] = label

    def unpin(self, root: Cid) -> None:
        with self._lock:
            self._pins.pop(root, None)

    def pins(self) -> dict[Cid, str]:
        with self._lock:
            return dict(self._pins)

    def hold(self, root: Cid, label: str) -> None:
        check_label(label)
        with self._lock:
            self._holds.add((root, label))

    def release(self, root: Cid, label: str) -> None:
        with self._lock:
            self._holds.discard((root, label))

    def holds(self) -> list[tuple[Cid, str]]:
        with self._lock:
            return sorted(self._holds)

    def lease(self, label: str, root: Cid | None = None) -> Lease:
        return self._leases.open(label, root)

    def usage(self) -> Usage:
        with self._lock:
            in_place = sum(each.length for each in self._references.values())
        return replace(self._quota.usage(), in_place=in_place)

    def set_limit(self, limit_bytes: int) -> None:
        self._quota.set_limit(limit_bytes)

    def verify(self, progress: Progress | None = None) -> list[Cid]:
        with self._lock:
            total = sum(len(data) for data in self.chunks.values())
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
        with self._lock:
            names = sorted({*self.chunks, *self._references})
        for cid in names:
            # Codec and the first bytes of the digest are in the order of the names.
            at = int.from_bytes(cids.digest(cid)[:7], "big") + (cids.codec(cid) << 56)
            if at > after:
                try:
                    length = self.size(cid)
                    self.get(cid)
                except ChunkNotFoundError:
                    continue
                except CorruptChunkError:
                    yield Checked(at, cid, length, is_good=False)
                else:
                    yield Checked(at, cid, length, is_good=True)

    def damaged(self) -> frozenset[Cid]:
        return self._damaged

    def add_references(self, references: Sequence[Reference]) -> int:
        with self._lock:
            fresh = {each.cid: each for each in references if not self.has(each.cid)}
            self._references.update((each.cid, each) for each in references)
            self._away.difference_update(each.cid for each in references)
            self._damaged -= {each.cid for each in references}
        return sum(each.length for each in fresh.values())

    def changed_files(self) -> list[str]:
        with self._lock:
            states = {str(each.path): each.state for each in self._references.values()}
        return sorted(path for path, state in states.items() if state_of(path) != state)

    def close(self) -> None:
        """Nothing to close: the bytes stay until the object goes."""

    def _get_in_place(self, cid: Cid) -> bytes:
        reference = self._references.get(cid)
        if reference is None:
            raise ChunkNotFoundError(cids.text(cid))
        try:
            data = read_in_place(reference)
        except UnreadableFileError:
            self._away.add(cid)
            self._damaged |= {cid}
            raise
        except ChangedFileError:
            del self._references[cid]
            self._away.discard(cid)
            self._damaged |= {cid}
            raise
        self._away.discard(cid)
        self._damaged -= {cid}
        return data

    def _forget(self, cid: Cid) -> None:
        self._damaged |= {cid}
        data = self.chunks.pop(cid, None)
        if data is not None:
            self._quota.refund(len(data) + CHUNK_OVERHEAD_BYTES)
