"""What a node lends, what it has used, and what is promised to bytes that are on their way.

A chunk costs its length and `CHUNK_OVERHEAD_BYTES`, which covers its record header, its CID and its row in the index.
Part of the disk stays free whatever is lent: the quota is a promise to the owner, and the disk may fill from elsewhere.
Bytes are reserved before they are received, so that a transfer that cannot end is refused when it starts.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from storage.errors import DiskReserveError, QuotaError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

RECORD_OVERHEAD_BYTES = 8 + 36
"""Record header and CID before a chunk in its segment."""
INDEX_ROW_BYTES = 212
"""What a chunk takes in the index at most; a test measures it."""
CHUNK_OVERHEAD_BYTES = RECORD_OVERHEAD_BYTES + INDEX_ROW_BYTES
KEEP_FREE_SHARE = 20
"""One part in this many of the disk stays free,"""
MAX_KEEP_FREE_BYTES = 10 * 10**9
"""or this much where that is less."""
EXPECTED_CHUNK_BYTES = 256 * 2**10
"""A reservation expects chunks of at least this size; smaller ones draw more from what is free."""


@dataclass(frozen=True, slots=True)
class Usage:
    """How the lent space is used, in bytes.

    Attributes:
        limit: What is lent.
        used: What the store takes, with its index.
        reserved: Promised to chunks on their way.
        free: What could be put now: within the limit, and within what the disk has beside its reserve.
        in_place: Of chunks that lie in the user's own files, beside `used`.
        pinned: Of chunks that the pins reach, when they were last counted by a collection.
        held: Of chunks that only holds and leases reach, then.
        reclaimable: Of dead chunks that were found then and still take room.
    """

    limit: int
    used: int
    reserved: int
    free: int
    in_place: int = 0
    pinned: int = 0
    held: int = 0
    reclaimable: int = 0


def default_keep_free(disk_bytes: int) -> int:
    """What stays free of a disk of that size, in bytes."""
    return min(disk_bytes // KEEP_FREE_SHARE, MAX_KEEP_FREE_BYTES)


def cost(length: int) -> int:
    """What a chunk of that many bytes costs."""
    return length + CHUNK_OVERHEAD_BYTES


class Quota:
    """The account of one store; thread safe.

    Args:
        limit: What is lent, bytes.
        used: What is used already, bytes.
        keep_free: What stays free on the disk, bytes.
        disk_free: Asked how much of the disk is free; without it there is no disk.

    Attributes:
        on_short: Told how many bytes the limit refused, in the thread that asked for them; it must not wait.
    """

    def __init__(
        self,
        limit: int,
        used: int = 0,
        *,
        keep_free: int = 0,
        disk_free: Callable[[], int] | None = None,
    ) -> None:
        _check_size(limit)
        _check_size(keep_free)
        self._keep_free = keep_free
        self._disk_free = disk_free
        self.on_short: Callable[[int], None] | None = None
        self._lock = threading.Lock()
        self._limit = limit
        self._used = used
        self._reserved = 0

    def usage(self) -> Usage:
        """The account as it stands."""
        with self._lock:
            return Usage(self._limit, self._used, self._reserved, self._free())

    def set_limit(self, limit: int) -> None:
        """Lend more or less; a limit below what is used refuses new bytes and removes none."""
        _check_size(limit)
        with self._lock:
            self._limit = limit

    def reserve(self, size: int) -> Reservation:
        """Promise room for `size` bytes of chunks, with what their records and index will take.

        Raises:
            QuotaError: They do not fit.
        """
        _check_size(size)
        needed = size + CHUNK_OVERHEAD_BYTES * (1 + size // EXPECTED_CHUNK_BYTES) if size else 0
        with self._lock:
            self._check(needed, 0)
            self._reserved += needed
        return Reservation(self, needed)

    def spend(self, amount: int, reservation: Reservation | None = None) -> None:
        """Count bytes as used, from the reservation first and then from what is free.

        Raises:
            QuotaError: They do not fit; nothing is counted.
        """
        with self._lock:
            promised = 0 if reservation is None else min(amount, reservation.remaining)
            self._check(amount, promised)
            if reservation is not None:
                reservation.remaining -= promised
            self._reserved -= promised
            self._used += amount

    def overdraw(self, amount: int) -> None:
        """Count bytes as used beyond any limit: a compaction writes before it removes more than it wrote."""
        with self._lock:
            self._used += amount

    def refund(self, amount: int) -> None:
        """Take back what was spent on bytes that were not written after all, or are gone."""
        with self._lock:
            self._used = max(0, self._used - amount)

    def release(self, reservation: Reservation) -> None:
        """Give back what a reservation did not use."""
        with self._lock:
            self._reserved -= reservation.remaining
            reservation.remaining = 0

    def _check(self, amount: int, promised: int) -> None:
        """Refuse an amount that does not fit, of which some was promised before.

        Raises:
            QuotaError: The limit does not allow it.
            DiskReserveError: The limit does, and the disk would be too full.
        """
        room = self._limit - self._used - self._reserved
        if amount - promised > max(0, room):
            if self.on_short is not None:
                self.on_short(amount - promised)
            raise QuotaError(amount, max(0, room) + promised)
        spare = self._spare()
        if spare is not None and amount and amount - promised > spare:
            raise DiskReserveError(amount, max(0, spare) + promised, self._keep_free)

    def _spare(self) -> int | None:
        """What the disk has beside its reserve and what is promised."""
        if self._disk_free is None:
            return None
        return self._disk_free() - self._keep_free - self._reserved

    def _free(self) -> int:
        room = self._limit - self._used - self._reserved
        spare = self._spare()
        return max(0, room if spare is None else min(room, spare))


class Reservation:
    """Room promised to bytes on their way; what is left is given back at the end of the block.

    Attributes:
        remaining: Bytes still promised.
    """

    def __init__(self, quota: Quota, size: int) -> None:
        self._quota = quota
        self.remaining = size

    def release(self) -> None:
        """Give back what was not used; again does nothing."""
        self._quota.release(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def topped_up(
    held: Reservation | None, needed: int, reserve: Callable[[int], Reservation]
) -> Reservation | None:
    """What a transfer has reserved, and more where that is less than it needs by now.

    Only the thread that calls may draw on it meanwhile.

    Args:
        held: What it has; None before the first byte.
        needed: Bytes of all chunks that are still to be written.
        reserve: Of the store.

    Raises:
        QuotaError: There is no room; what is held stays.
    """
    remaining = 0 if held is None else held.remaining
    if needed <= remaining:
        return held
    more = reserve(needed - remaining)
    if held is not None:
        more.remaining, held.remaining = more.remaining + held.remaining, 0
    return more


def _check_size(size: int) -> None:
    if size < 0:
        message = f"a size in bytes is not negative: {size}"
        raise StorageError(message)
