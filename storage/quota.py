"""What a node lends, what it has used, and what is promised to bytes that are on their way.

A chunk costs its length and `CHUNK_OVERHEAD_BYTES`, which covers its record header, its CID and its row in the index.
Bytes are reserved before they are received, so that a transfer that cannot end is refused when it starts.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from storage.errors import QuotaError, StorageError

if TYPE_CHECKING:
    from types import TracebackType

RECORD_OVERHEAD_BYTES = 8 + 36
"""Record header and CID before a chunk in its segment."""
INDEX_ROW_BYTES = 212
"""What a chunk takes in the index at most; a test measures it."""
CHUNK_OVERHEAD_BYTES = RECORD_OVERHEAD_BYTES + INDEX_ROW_BYTES
EXPECTED_CHUNK_BYTES = 256 * 2**10
"""A reservation expects chunks of at least this size; smaller ones draw more from what is free."""


@dataclass(frozen=True, slots=True)
class Usage:
    """How the lent space is used, in bytes."""

    limit: int
    used: int
    reserved: int
    free: int


def cost(length: int) -> int:
    """What a chunk of that many bytes costs."""
    return length + CHUNK_OVERHEAD_BYTES


class Quota:
    """The account of one store; thread safe."""

    def __init__(self, limit: int, used: int = 0) -> None:
        _check_size(limit)
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
            if needed > self._free():
                raise QuotaError(needed, self._free())
            self._reserved += needed
        return Reservation(self, needed)

    def spend(self, amount: int, reservation: Reservation | None = None) -> None:
        """Count bytes as used, from the reservation first and then from what is free.

        Raises:
            QuotaError: They do not fit; nothing is counted.
        """
        with self._lock:
            promised = 0 if reservation is None else min(amount, reservation.remaining)
            if amount - promised > self._free():
                raise QuotaError(amount, self._free() + promised)
            if reservation is not None:
                reservation.remaining -= promised
            self._reserved -= promised
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

    def _free(self) -> int:
        return max(0, self._limit - self._used - self._reserved)


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


def _check_size(size: int) -> None:
    if size < 0:
        message = f"a size in bytes is not negative: {size}"
        raise StorageError(message)
