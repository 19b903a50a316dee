"""The second half of a collection: out of segments in which much is dead, what lives is copied, and the file removed.

For a few rows of the index at a time:

1. under the lock of the leases, those that nothing protects are dropped;
2. the others are appended to the last segment, made durable, and only then known at their new place;
3. when no row is left in the segment, its file is removed and its room given back.

A crash between any two of these leaves chunks that lie twice, or dead ones that are known again: nothing that is lost.
A reader that finds the file gone asks the index again.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from storage.index import key
from storage.quota import INDEX_ROW_BYTES
from storage.segments import DamagedRecordError, Packed, pack

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from storage.blockstore import SegmentBlockstore
    from storage.cid import Cid
    from storage.index import Place
    from storage.marking import Marking

DROP_ROWS = 256
"""Rows that are looked at under the lock."""
MOVE_BYTES = 4 * 2**20
"""What is copied in one step, and so how long a flush by others waits for this one."""


class Compaction:
    """Removes what a marking found to be dead; used by one thread.

    Attributes:
        dropped: Chunks that are no longer held.
        moved: Bytes of chunks that were copied.
        damaged: Chunks that should have been copied and could not be read.
    """

    def __init__(self, store: SegmentBlockstore, marking: Marking) -> None:
        self._store = store
        self._marking = marking
        self.dropped = 0
        self.moved = 0
        self.damaged: list[Cid] = []

    def empty(self, segment: int) -> Generator[int, None, bool]:
        """Compact one segment; yields bytes copied in each step.

        Returns:
            Whether its file was removed; not so if a root was added whose nodes cannot be read.
        """
        store = self._store
        if segment == max(store.log.sizes()):
            store.writer.seal()
        store.writer.flush()  # so that the index knows every chunk in the segment
        rows = store.index.rows(key(segment, 0) - 1, key(segment + 1, 0))
        while batch := list(islice(rows, DROP_ROWS)):
            alive = None
            while alive is None:
                yield from self._marking.walk()
                if self._marking.unreadable:
                    return False
                alive = self._drop(batch)
            yield from self._move(alive)
            yield 0
        store.writer.remove_segment(segment)
        return True

    def drop_references(self) -> Iterator[int]:
        """Forget chunks in users' files that nothing names."""
        store = self._store
        for page in store.references.rows(before=self._marking.floor.reference):
            dropped = None
            while dropped is None:
                yield from self._marking.walk()
                if self._marking.unreadable:
                    return
                dropped = self._drop_references([(number, cid) for number, cid, _ in page])
            self.dropped += dropped
            store.quota.refund(dropped * INDEX_ROW_BYTES)
            yield 0

    def _drop(self, batch: list[tuple[Cid, Place]]) -> list[tuple[Cid, Place]] | None:
        """Drop the dead; returns the others, or None if a root was added meanwhile."""
        with self._store.leases.lock:
            if not self._marking.is_current():
                return None
            is_dead = [self._marking.is_dead(cid, place) for cid, place in batch]
            dropped = self._store.index.drop(
                [place.key for (_, place), dead in zip(batch, is_dead, strict=True) if dead]
            )
        self.dropped += dropped
        self._store.quota.refund(dropped * INDEX_ROW_BYTES)
        return [row for row, dead in zip(batch, is_dead, strict=True) if not dead]

    def _drop_references(self, rows: list[tuple[int, Cid]]) -> int | None:
        with self._store.leases.lock:
            if not self._marking.is_current():
                return None
            dead = [n for n, cid in rows if self._marking.is_dead_reference(cid, n)]
            return self._store.references.drop(dead) if dead else 0

    def _move(self, rows: list[tuple[Cid, Place]]) -> Iterator[int]:
        group: list[tuple[Packed, Place]] = []
        size = 0
        for cid, place in rows:
            try:
                group.append((pack(cid, self._store.log.read(cid, place)), place))
            except DamagedRecordError:
                if self._store.index.find(cid) == place:
                    self._store.forget(cid, place)
                    self.damaged.append(cid)
                continue
            size += place.length
            if size >= MOVE_BYTES:
                yield self._append(group, size)
                group, size = [], 0
        if group:
            yield self._append(group, size)

    def _append(self, group: list[tuple[Packed, Place]], size: int) -> int:
        self._store.writer.move(group)
        self.moved += size
        return size
