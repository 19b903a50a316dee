"""Leases: what work in progress has written or counted on, and no collection may take from it.

A lease protects, from its opening to its closing,

1. what is appended anywhere: a collection looks only at what lies before the place where the oldest open lease began;
2. what was found to be held: `touch` notes it in a filter, before the question is answered;
3. what its root reaches, if it has one: the collection walks from it as from a pin.

So a chunk that is written costs nothing more, and one that is found costs four bits in memory.
The filter (Bloom, 1970) may believe that it knows a name which it does not; here that only keeps a dead chunk until a
later collection.
"""

from __future__ import annotations

import struct
import threading
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from storage.cid import Cid

FILTER_BITS = 2**24
"""2 MiB a filter."""
FILTER_NAMES = 10**6
"""Names in one filter at most, of which it then mistakes 0.2 % of others for its own; the next ones go to a new filter."""
MAX_FILTERS = 32
"""64 MiB for 32 million names; what is more goes to the last, which then knows too many: it keeps dead chunks, no more."""
_PARTS = struct.Struct("<4I")
_DIGEST_AT = 4


class Ends(NamedTuple):
    """Where what is appended next will lie.

    Attributes:
        place: In the segments.
        reference: The number of the next reference into a user's file.
    """

    place: int
    reference: int


class NameFilter:
    """A set of CIDs that may hold a few more than were put in; not thread safe."""

    def __init__(self) -> None:
        self._bits = bytearray(FILTER_BITS // 8)
        self.count = 0

    def add(self, cid: Cid) -> None:
        """Remember a name; its digest is uniform, so parts of it serve as the hashes."""
        for part in _PARTS.unpack_from(cid, _DIGEST_AT):
            self._bits[(part >> 3) % (FILTER_BITS // 8)] |= 1 << (part & 7)
        self.count += 1

    def __contains__(self, cid: Cid) -> bool:
        return all(
            self._bits[(part >> 3) % (FILTER_BITS // 8)] >> (part & 7) & 1
            for part in _PARTS.unpack_from(cid, _DIGEST_AT)
        )


class Lease:
    """One piece of work in progress; ends with its block.

    Attributes:
        label: Who holds it, for people.
        root: What it is about, if that is known.
        since: Where the store ended when it began.
        filters: How many filters had been used up when it began.
    """

    def __init__(self, leases: Leases, label: str, root: Cid | None, filters: int) -> None:
        self._leases = leases
        self.label = label
        self.root = root
        self.since = leases.ends()
        self.filters = filters

    def close(self) -> None:
        """Let go; what is to stay is pinned or held by now. Again does nothing."""
        self._leases.close(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Leases:
    """The open leases of one store; thread safe.

    Attributes:
        lock: Held for the moment in which a collection asks what is protected and drops what is not. Whoever wants to
            count on a chunk touches it first, so the chunk is either kept, or gone before the question is answered.
        roots_version: Grows whenever a root is added.

    Args:
        ends: Where the store ends now, counting what is appended and not yet durable.
    """

    def __init__(self, ends: Callable[[], Ends]) -> None:
        self.ends = ends
        self.lock = threading.Lock()
        self.roots_version = 0
        self._open: set[Lease] = set()
        self._filters: list[NameFilter] = []
        self._dropped = 0

    def open(self, label: str, root: Cid | None = None) -> Lease:
        """Begin to protect."""
        with self.lock:
            lease = Lease(self, label, root, self._dropped + max(0, len(self._filters) - 1))
            self._open.add(lease)
            if root is not None:
                self.roots_version += 1
        return lease

    def watch(self) -> Lease:
        """What a collection holds: until it ends, nothing is forgotten that was touched, by leases before it too."""
        with self.lock:
            lease = Lease(self, "", None, self._dropped)
            self._open.add(lease)
        return lease

    def close(self, lease: Lease) -> None:
        """End a lease, and forget what only it had touched."""
        with self.lock:
            self._open.discard(lease)
            oldest = min((each.filters for each in self._open), default=None)
            stale = len(self._filters) if oldest is None else oldest - self._dropped
            del self._filters[:stale]
            self._dropped += stale

    def labels(self) -> list[str]:
        """Of the open leases, sorted."""
        with self.lock:
            return sorted(lease.label for lease in self._open if lease.label)

    def roots(self) -> set[Cid]:
        """Of the open leases."""
        with self.lock:
            return {lease.root for lease in self._open if lease.root is not None}

    def floor(self) -> Ends:
        """The place from which on everything is protected: no open lease began before it."""
        with self.lock:
            all_ends = [self.ends(), *(lease.since for lease in self._open)]
            return Ends(
                min(each.place for each in all_ends), min(each.reference for each in all_ends)
            )

    def touch(self, cids: Iterable[Cid]) -> None:
        """Protect what is about to be found, as long as the leases that are open now; costs nothing without one."""
        if not self._open:
            return
        with self.lock:
            for cid in cids:
                if not self._filters or (
                    self._filters[-1].count >= FILTER_NAMES and len(self._filters) < MAX_FILTERS
                ):
                    self._filters.append(NameFilter())
                if cid not in self._filters[-1]:
                    self._filters[-1].add(cid)

    def is_touched(self, cid: Cid) -> bool:
        """Whether an open lease counts on the chunk; call it with `lock` held."""
        return any(cid in names for names in self._filters)

    def root_added(self) -> None:
        """A pin or a hold is durable; a collection under way walks from it before it drops anything more."""
        with self.lock:
            self.roots_version += 1
