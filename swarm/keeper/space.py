"""One number over all that a data folder takes, held at every write: chunks, unpacked files and sealed slots.

What slots and the shelf take is taken off the store's limit before it is written, so that none of the three can be the one
that goes beyond. Who finds no room is refused at once, or waits until slots have given way (`swarm.keeper.making_room`).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from storage.errors import QuotaError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from storage.blockstore import SegmentBlockstore


class LentSpace:
    """The account of one data folder: a `storage.slot_space.Space`; thread safe.

    Args:
        store: Its chunks, whose limit this sets from now on.
        lent: Bytes.
        shelf_bytes: Asked what unpacked files take, by the event loop alone.
    """

    def __init__(
        self, store: SegmentBlockstore, lent: int, shelf_bytes: Callable[[], int] = lambda: 0
    ) -> None:
        self._store = store
        self._lent = lent
        self._shelf_bytes = shelf_bytes
        self._shelf = shelf_bytes()
        self._slots = 0
        self._short = 0
        self._lock = threading.Lock()
        store.quota.on_short = self._note
        self._limit()

    @property
    def lent(self) -> int:
        """What the person said."""
        return self._lent

    @property
    def slots(self) -> int:
        """What sealed slots take."""
        return self._slots

    @property
    def shelf(self) -> int:
        """What unpacked files take, as of the last look."""
        return self._shelf

    @property
    def free(self) -> int:
        """What is lent and not taken; below 0 where more is taken than is lent."""
        with self._lock:
            return self._free()

    def lend(self, lent: int) -> None:
        """Lend another number; what is here stays."""
        with self._lock:
            self._lent = lent
            self._limit()

    def found(self, size: int) -> None:
        """Count bytes of slots that are on the disk already, whether they fit or not."""
        with self._lock:
            self._slots += size
            self._limit()

    def take(self, size: int) -> None:
        """Count bytes of slots that are about to be written.

        Raises:
            QuotaError: They do not fit beside what the rest takes.
        """
        with self._lock:
            # First the limit, then the look: what the store takes meanwhile was within the lower one.
            self._slots += size
            self._limit()
            if (free := self._free()) < 0:
                self._slots -= size
                self._limit()
                raise QuotaError(size, max(0, free + size))

    def give(self, size: int) -> None:
        """Count bytes of slots no more."""
        with self._lock:
            self._slots -= size
            self._limit()

    def look(self) -> None:
        """See what unpacked files take now; called by the event loop before they are written as well.

        Raises:
            QuotaError: They have grown, and do not fit; they count all the same until they are gone.
        """
        now = self._shelf_bytes()
        with self._lock:
            before, self._shelf = self._shelf, now
            self._limit()
            if now > before and (free := self._free()) < 0:
                raise QuotaError(now - before, max(0, free + now - before))

    def take_short(self) -> int:
        """The most bytes that the store refused since this was asked last."""
        with self._lock:
            short, self._short = self._short, 0
            return short

    def _note(self, size: int) -> None:
        # Under the store's lock, in whatever thread wrote: no other lock may be taken here.
        self._short = max(self._short, size)

    def _free(self) -> int:
        usage = self._store.usage()
        return self._lent - self._shelf - self._slots - usage.used - usage.reserved

    def _limit(self) -> None:
        self._store.set_limit(max(0, self._lent - self._shelf - self._slots))


def bytes_below(folder: Path) -> int:
    """What the files of a folder take: of slots that nobody opened, which take it all the same."""
    return sum(one.stat().st_size for one in folder.rglob("*") if one.is_file())
