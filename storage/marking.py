"""The first half of a collection: from every root to everything that it reaches, a few chunks at a time.

What counts is what the index knew when the marking began, below the floor of the leases (`storage.leases`); what was
appended and was not durable yet is not in it, and so not in danger.
A node that is held and cannot be read hides what it names, and so does one that nobody here understands: it is noted in
`unreadable`, and nothing may be dropped while there is one.
A node that is not held, because a fetch has not brought it yet, hides nothing that was ever promised.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from storage import cid as cids
from storage.errors import ChunkNotFoundError, CorruptChunkError, ManifestError
from storage.marks import Marks
from storage.segments import PREFIX_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from storage.blockstore import SegmentBlockstore
    from storage.cid import Cid
    from storage.index import Place
    from storage.walk import Links

GROUP = 64
"""Chunks that one step looks at."""


class Marking:
    """What is alive in a store; used by one thread.

    Attributes:
        floor: What lies at or behind it is alive without being marked.
        places: Chunks in segments.
        references: Chunks in the user's files.
        alive: Bytes of marked records, by segment.
        pinned: Bytes of chunks that pins reach.
        held: Bytes of chunks that only holds and leases reach.
        unreadable: Nodes that are held and hide what they name.

    Args:
        store: What to look at.
        links: What a block names.
    """

    def __init__(self, store: SegmentBlockstore, links: Links) -> None:
        self._store = store
        self._links = links
        self.floor = store.leases.floor()
        self.places = Marks()
        self.references = Marks()
        self.alive: Counter[int] = Counter()
        self.pinned = 0
        self.held = 0
        self.unreadable: list[Cid] = []
        self._damaged = store.damaged()
        self._reached_damage: set[Cid] = set()
        self._walked: set[Cid] = set()
        self._beyond: set[Cid] = set()
        self._version = -1
        self._marked = 0

    def look(self) -> Iterator[int]:
        """Take down what there is; yields how many chunks so far."""
        for page in self._store.index.keys(self.floor.place):
            self.places.extend(page)
            yield len(self.places)
        for rows in self._store.references.rows(before=self.floor.reference):
            self.references.extend(number for number, _, _ in rows)
            yield len(self.places) + len(self.references)

    def walk(self) -> Iterator[int]:
        """Mark what is reached from roots that were not walked yet; yields the chunks looked at in each step."""
        while not self.is_current():
            self._version = self._store.leases.roots_version
            marked = self._marked
            for root in self._store.pins().keys() - self._walked:
                yield from self._walk(root)
            self.pinned += self._marked - marked
            marked = self._marked
            others = self._store.leases.roots().union(root for root, _ in self._store.holds())
            for root in others - self._walked:
                yield from self._walk(root)
            self.held += self._marked - marked

    def is_current(self) -> bool:
        """Whether no root was added since the last walk; lasts as long as the lock of the leases is held."""
        return self._version == self._store.leases.roots_version

    def is_dead(self, cid: Cid, place: Place) -> bool:
        """Whether nothing protects a chunk; call it when current, with the lock of the leases held."""
        return self.places.is_dead(place.key) and not self._store.leases.is_touched(cid)

    def is_dead_reference(self, cid: Cid, number: int) -> bool:
        """The same for a chunk in a user's file."""
        return self.references.is_dead(number) and not self._store.leases.is_touched(cid)

    def unwanted_damage(self) -> frozenset[Cid]:
        """Chunks that were damaged before this began and that no root names."""
        return self._damaged - self._reached_damage

    def _walk(self, root: Cid) -> Iterator[int]:
        self._walked.add(root)
        stack = [root]
        while stack:
            group = [stack.pop() for _ in range(min(GROUP, len(stack)))]
            for cid, place in zip(group, self._store.index.find_many(group), strict=True):
                if self._reach(cid, place) and cids.codec(cid) != cids.RAW:
                    stack += self._children(cid)
            yield len(group)

    def _reach(self, cid: Cid, place: Place | None) -> bool:
        """Mark a chunk; true if it is held, and was not reached before."""
        if place is None:
            self._reach_elsewhere(cid)
            return False
        if place.key in self.places:
            if not self.places.mark(place.key):
                return False
            self._marked += place.length
            self.alive[place.segment] += PREFIX_BYTES + place.length
            return True
        # It came after the marking began, so it is alive; a leaf need not be remembered.
        if cids.codec(cid) == cids.RAW or cid in self._beyond:
            return False
        self._beyond.add(cid)
        return True

    def _reach_elsewhere(self, cid: Cid) -> None:
        if cid in self._store.damaged():
            self._reached_damage.add(cid)
            if cids.codec(cid) != cids.RAW:
                self.unreadable.append(cid)
        reference = self._store.references.find(cid)
        if reference is not None and self.references.mark(reference[0]):
            self._marked += reference[1]

    def _children(self, cid: Cid) -> list[Cid]:
        try:
            return [link.cid for link in self._links(cid, self._store.get(cid))]
        except ChunkNotFoundError:
            self._reach_elsewhere(
                cid
            )  # gone since it was found: a reader may have found it damaged
            return []
        except (CorruptChunkError, ManifestError):
            self.unreadable.append(cid)
            return []
