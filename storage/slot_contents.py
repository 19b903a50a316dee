"""Chunks that lie in sealed slots and not in the store's segments: put there, read, and taken out again.

A chunk is sealed into a slot of zeros, durably, and only then let go by the store; so at every moment one of the two gives
it, and a crash between leaves both. The store looks here for what it does not hold itself (`SegmentBlockstore.beside`), so
whatever reads chunks reads these as well: peers, audits, repairs, the owner.
Manifests stay in the store: whoever walks a root finds them at once, and a collection sees what they name.

A slot goes back to zeros when no pin, hold or lease reaches its chunk: for that the roots are walked as a collection does,
and a chunk that somebody has just counted on stays (`storage.leases`).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from storage import cid as cids
from storage import dag
from storage.errors import ChunkNotFoundError, CorruptChunkError, ManifestError
from storage.sealing import SLOT_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from storage.blockstore import SegmentBlockstore
    from storage.cid import Cid
    from storage.slots import SlotStore

MIN_SEALED_BYTES: Final = 64 * 2**10
"""Of a chunk that goes into a slot: a smaller one takes as long to seal as a megabyte, and as long to read."""


class SlotContents:
    """What lies in the slots of one keeper; thread safe, but for `put`, `move_down` and `clear`: one thread at a time.

    Args:
        slots: Where chunks are sealed.
        store: Where they are otherwise; looks here from now on.
        min_bytes: Smaller chunks stay in the store.
    """

    def __init__(
        self, slots: SlotStore, store: SegmentBlockstore, min_bytes: int = MIN_SEALED_BYTES
    ) -> None:
        self._slots = slots
        self._store = store
        self._min_bytes = min_bytes
        self._leaving: set[Cid] = set()
        self._lock = threading.Lock()
        store.beside = self

    def length(self, cid: Cid) -> int | None:
        """As `storage.contract.Beside`."""
        with self._lock:
            if cid in self._leaving:
                return None
        return self._slots.length(cid)

    def get(self, cid: Cid) -> bytes:
        """As `storage.contract.Beside`."""
        return self._slots.get(cid)

    def chunks(self) -> list[Cid]:
        """As `storage.contract.Beside`."""
        found = self._slots.chunks()
        with self._lock:
            return [cid for cid in found if cid not in self._leaving]

    def mend(self, cid: Cid) -> bool:
        """As `storage.contract.Beside`; thread safe.

        Raises:
            ChunkNotFoundError: The store does not hold it.
        """
        slot = self._slots.find(cid)
        if slot is None or self._slots.length(cid) is not None:
            return False
        self._slots.mend(slot, (cid, self._store.get(cid)))
        self._store.let_go(cid)
        return True

    def waiting(self, root: Cid) -> list[Cid]:
        """The leaves below a root that the store's segments hold and that a slot could, each once, in their order."""
        found: dict[Cid, None] = {}
        for leaf in self._leaves([root]):
            place = self._store.index.find(leaf)
            if place is not None and self._min_bytes <= place.length <= SLOT_BYTES:
                found[leaf] = None
        return list(found)

    def put(self, cid: Cid, below: int) -> bool:
        """Seal a chunk of the store into the lowest slot of zeros, and let the store go of it.

        Args:
            cid: Of the chunk; where a slot holds it already, that one is mended if it is damaged.
            below: Only slots under this number are taken.

        Returns:
            Whether it lies in a slot now; false where no slot holds zeros.

        Raises:
            ChunkNotFoundError: It is not held.
            QuotaError: There is no room for the slot beside the one whose place it takes.
            SlotBusyError: Its slot is being emptied, and is not settled yet.
        """
        slot = self._slots.find(cid)
        if slot is None:
            vacant = self._slots.vacant()
            if vacant is None or vacant >= below:
                return False
            self._slots.replace(vacant, (cid, self._store.get(cid)))
        elif self.mend(cid):
            return True
        self._store.let_go(cid)
        return True

    def move_down(self, keep: int) -> bool:
        """Move the chunk in the last slot that holds one to the lowest slot of zeros, if the first `keep` are too few.

        Returns:
            Whether one was moved.

        Raises:
            CorruptChunkError: It is damaged; `put` mends it once the store has it again.
        """
        top, vacant = self._slots.top, self._slots.vacant()
        if top <= keep or vacant is None or vacant >= top - 1:
            return False
        cid = self._slots.chunk_to_be_in(top - 1)
        if cid is None or self._slots.is_staged(top - 1):
            return False
        if self._slots.find(cid) == top - 1:  # else a crash came between the two last time
            self._slots.replace(vacant, (cid, self._slots.get(cid)))
        self._slots.replace(top - 1, None)
        return True

    def clear(self, most: int, pause: Callable[[], None] = lambda: None) -> int:
        """Put slots whose chunk nothing reaches back to zeros.

        Args:
            most: So many at once.
            pause: Called after each.

        Returns:
            How many there were; none while a manifest that is kept cannot be read, since what it names is not known.
        """
        # Nobody counts unseen on what is found here to be unwanted: the watch remembers every name that is asked for.
        with self._store.leases.watch():
            unwanted = self._unwanted(most)
            try:
                for slot, _ in unwanted:
                    self._slots.replace(slot, None)
                    pause()
            finally:
                with self._lock:
                    self._leaving.difference_update(cid for _, cid in unwanted)
        return len(unwanted)

    def _unwanted(self, most: int) -> list[tuple[int, Cid]]:
        """Slots with chunks that nothing reaches; those chunks do not count as held from now on."""
        leases = self._store.leases
        while True:
            version = leases.roots_version
            left = {
                cid: slot
                for cid, slot in self._slots.chunks().items()
                if not self._slots.is_staged(slot)
            }
            if not left:
                return []
            roots = {root for root, _ in self._store.holds()}
            try:
                for leaf in self._leaves(roots | leases.roots() | self._store.pins().keys()):
                    left.pop(leaf, None)
            except (CorruptChunkError, ManifestError):
                return []
            with leases.lock:
                if version != leases.roots_version:
                    continue
                found = [(slot, cid) for cid, slot in left.items() if not leases.is_touched(cid)]
                del found[most:]
                with self._lock:
                    self._leaving.update(cid for _, cid in found)
                return found

    def _leaves(self, roots: Iterable[Cid]) -> Iterator[Cid]:
        """Every leaf below roots whose way there is held; some more than once.

        Raises:
            CorruptChunkError, ManifestError: A manifest that is held, or was, cannot be read.
        """
        stack, seen = list(roots), set(roots)
        while stack:
            cid = stack.pop()
            if cids.codec(cid) == cids.RAW:
                yield cid
                continue
            try:
                links = dag.links(cid, self._store.get(cid))
            except ChunkNotFoundError:
                if cid in self._store.damaged():
                    raise CorruptChunkError(cids.text(cid)) from None
                continue  # a fetch has not brought it yet
            fresh = [link.cid for link in links if link.cid not in seen]
            seen.update(one for one in fresh if cids.codec(one) != cids.RAW)
            stack += reversed(fresh)
