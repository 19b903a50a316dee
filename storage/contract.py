"""What every store of chunks owes its callers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from storage.cid import Cid

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from storage.leases import Lease
    from storage.quota import Reservation, Usage
    from storage.references import Reference

Progress: TypeAlias = Callable[[int, int], None]
"""Called with (bytes done, bytes in total)."""
Pairs: TypeAlias = Iterable[tuple[Cid, bytes | memoryview]]


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of reading one chunk again.

    Attributes:
        at: Where it stands in the order of checking; `check(at)` goes on behind it.
        cid: Its name.
        length: Bytes.
        is_good: Whether its bytes hash to its name.
    """

    at: int
    cid: Cid
    length: int
    is_good: bool


class Beside(Protocol):
    """Chunks that lie elsewhere on this machine and count as held: many threads may ask at once."""

    def length(self, cid: Cid) -> int | None:
        """A chunk's bytes; None where it does not lie there."""

    def get(self, cid: Cid) -> bytes:
        """A chunk.

        Raises:
            ChunkNotFoundError: It does not lie there.
            CorruptChunkError: What the disk gave back does not hash to its CID; `length` says so from then on.
        """

    def chunks(self) -> list[Cid]:
        """Every chunk that lies there, whether what the disk holds of it is good or not."""

    def mend(self, cid: Cid) -> bool:
        """Put a chunk that the store got back to where it was damaged, and let the store go of it.

        Returns:
            Whether it was damaged there.

        Raises:
            ChunkNotFoundError: The store does not hold it.
        """


class Blockstore(Protocol):
    """A store of chunks by CID; many threads may call it at once."""

    def has(self, cid: Cid) -> bool:
        """Whether the chunk is held."""

    def missing(self, wanted: Iterable[Cid], *, count_on: bool = True) -> list[Cid]:
        """Those of `wanted` that are not held, each once, in their order.

        Args:
            wanted: What is asked for.
            count_on: Let the leases that are open protect what is found. Without it a collection may take it at any
                time: so a peer is answered, whose questions are nobody's work in progress and have no end.
        """

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
                that it can be fetched again. One in a file of the user's that cannot be read now is held again once
                it can be.
            OSError: It cannot be read for a reason that may pass, such as too many open files.
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

    def hold(self, root: Cid, label: str) -> None:
        """Keep everything that the root names for one more reason, which outlives the process.

        A pin is the user's; a hold is the node's own: a keeper's duty, a fetch that goes on after a restart.
        """

    def release(self, root: Cid, label: str) -> None:
        """End a reason; nothing happens if there was none."""

    def holds(self) -> list[tuple[Cid, str]]:
        """Each (root, label), sorted."""

    def lease(self, label: str, root: Cid | None = None) -> Lease:
        """Protect work in progress until the lease is closed; use it as a context manager.

        Until then no collection takes what was put since, what `has` or `missing` was asked for, or what the root
        reaches. What is to stay is pinned or held before the lease ends.
        """

    def usage(self) -> Usage:
        """What is lent, used, reserved and free, in bytes."""

    def set_limit(self, limit_bytes: int) -> None:
        """Lend more or less; chunks that are held stay."""

    def verify(self, progress: Progress | None = None) -> list[Cid]:
        """Read everything again.

        Returns:
            The damaged chunks, which are then no longer held.
        """

    def check(self, after: int = 0) -> Iterator[Checked]:
        """Read everything again, a chunk at a time; damaged chunks are then no longer held.

        Args:
            after: The `at` of what was checked last, to go on from there.
        """

    def damaged(self) -> frozenset[Cid]:
        """What was held, could not be read, and has not been put again."""

    def add_references(self, references: Sequence[Reference]) -> int:
        """Know chunks that lie in the user's own files, without copying them; durable when it returns.

        Returns:
            The bytes of those that were not held before.
        """

    def changed_files(self) -> list[str]:
        """Files that were published in place and are gone or are not what they were."""

    def close(self) -> None:
        """Write what is left and let go of the folder."""
