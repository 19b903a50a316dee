"""Sealed slots as they are read: what lies in them, chunks of it, proofs, and whether the disk still holds them.

Reads wait for no sealing. `storage.slots.SlotStore` is what changes them.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from storage import canonical, merkle
from storage import cid as cids
from storage.errors import ChunkNotFoundError, CorruptChunkError
from storage.sealing import SLOT_BYTES, SLOT_LEAVES, slot_key, unseal
from storage.slot_files import DamagedSlotError, SlotFiles
from storage.slot_index import ROW_BYTES, SlotIndex, Version
from storage.slot_proofs import LeafProof, SlotProof, UnknownVersionError
from storage.slot_tree import Changes, Label, SlotTree, holds, slot_leaves, slot_root

if TYPE_CHECKING:
    from pathlib import Path

    from storage.blockstore import Progress
    from storage.cid import Cid
    from storage.files import Files

SLOT_COST: Final = SLOT_BYTES + ROW_BYTES
"""Bytes that a slot takes on the disk."""
LAYOUT: Final = 1
"""Version of the database and of the files beside it."""


class SlotReading:
    """The slots of one keeper on one chain, as far as reading goes; thread safe.

    Args:
        folder: Where they live; made if it is not there.
        public_key: The keeper's, 32 bytes.
        chain_id: 32 bytes.
        log_n: The chain's `seal_log_n`.
        passes: The chain's `seal_passes`.
        files: How slots are written; a test puts a failing disk here.

    Raises:
        StoreLockedError: Another process has it open.
        LogError: It was sealed for another key, chain or cost.
    """

    def __init__(
        self,
        folder: Path,
        public_key: bytes,
        chain_id: bytes,
        log_n: int,
        passes: int,
        files: Files,
    ) -> None:
        self._public_key = public_key
        self._chain_id = chain_id
        self._log_n = log_n
        self._passes = passes
        self._lock = threading.RLock()
        self._seal_lock = threading.RLock()
        self._tree = SlotTree()
        self._changes = Changes({})
        self._lost: set[Cid] = set()
        self._files = SlotFiles(folder, files)
        owner = canonical.encode([LAYOUT, public_key, chain_id, log_n, passes])
        self._index = SlotIndex(folder, owner)

    def __len__(self) -> int:
        """Slots that are sealed, committed or not."""
        return len(self._tree)

    @property
    def bytes_used(self) -> int:
        """What the slots take on the disk, those that wait to be put in and the database included."""
        with self._lock:
            return (len(self) + self._index.count_pending()) * SLOT_COST

    @property
    def waiting(self) -> int:
        """Slots whose next form waits, staged or not."""
        with self._lock:
            return self._index.count_pending()

    @property
    def unstaged(self) -> int:
        """Slots whose next form waits for a version that is not staged yet."""
        with self._lock:
            return self._index.count_unstaged()

    @property
    def holding(self) -> int:
        """Slots that hold a chunk, or will."""
        with self._lock:
            return self._index.count_chunks()

    @property
    def top(self) -> int:
        """Slots up to the last that holds a chunk, or will: no fewer can be kept without losing one."""
        with self._lock:
            return self._index.top()

    @property
    def settled(self) -> Version:
        """The version that the slot files hold; no slots before the first is settled."""
        with self._lock:
            return self._index.version("settled") or Version(merkle.root([]), 0)

    @property
    def staged(self) -> Version | None:
        """The version that is to be settled next, if there is one."""
        with self._lock:
            return self._index.version("staged")

    def root(self, slots: int) -> bytes:
        """The root over the first `slots` as the slot files hold them."""
        with self._lock:
            return self._tree.root(min(slots, len(self)))

    def find(self, cid: Cid) -> int | None:
        """The slot that holds a chunk, or will."""
        with self._lock:
            return self._index.find(cid)

    def length(self, cid: Cid) -> int | None:
        """A chunk's bytes; None where no slot holds it, or the one that did was found damaged (`mend`)."""
        with self._lock:
            return None if cid in self._lost else self._index.length(cid)

    def chunks(self) -> dict[Cid, int]:
        """The chunks that the slots hold, or will, and where."""
        with self._lock:
            return self._index.chunks()

    def vacant(self) -> int | None:
        """The lowest slot that holds zeros and is not about to be replaced; None where every one is full."""
        with self._lock:
            return self._index.vacant()

    def get(self, cid: Cid) -> bytes:
        """A chunk by its CID.

        Raises:
            ChunkNotFoundError: No slot holds it.
            CorruptChunkError: What the disk gave back does not hash to the CID; `length` says so from then on.
            OSError: The slot could not be read for a reason that may pass.
        """
        with self._lock:
            slot = self._index.find(cid)
            if slot is None:
                raise ChunkNotFoundError(cids.text(cid))
            try:
                label, sealed = self._newest(slot)
            except DamagedSlotError as error:
                self._lost.add(cid)
                raise CorruptChunkError(cids.text(cid)) from error
        content = unseal(self._key(slot, label.named), sealed, self._passes)
        if not holds(label, content):
            with self._lock:
                if self._index.find(cid) == slot:  # or it was moved meanwhile
                    self._lost.add(cid)
            raise CorruptChunkError(cids.text(cid))
        return content[: label.length]

    def chunk_in(self, slot: int) -> Cid | None:
        """The chunk that stands in a slot; None for zeros."""
        with self._lock:
            label = self._index.label(slot)
            return None if label is None else label.cid

    def chunk_to_be_in(self, slot: int) -> Cid | None:
        """The chunk that a slot holds once everything is settled; None for zeros."""
        with self._lock:
            pending = self._index.pending(slot)
            return self.chunk_in(slot) if pending is None else pending.label.cid

    def is_staged(self, slot: int) -> bool:
        """Whether a slot was replaced and staged, so that it cannot be replaced again before that is settled."""
        with self._lock:
            pending = self._index.pending(slot)
            return pending is not None and pending.staged

    def prove(self, root: bytes, slot: int, number: int) -> LeafProof:
        """A leaf with its way to the root of a version.

        Raises:
            UnknownVersionError: The root is neither settled nor staged.
            IndexError: That version has no such slot, or a slot no such leaf.
            DamagedSlotError: The disk does not hold what was committed.
            OSError: The slot could not be read for a reason that may pass.
        """
        if not 0 <= number < SLOT_LEAVES:
            message = f"there is no leaf {number} in a slot"
            raise IndexError(message)
        label, sealed, path = self._committed(root, slot)
        leaves = slot_leaves(sealed)
        inner = merkle.prove(leaves, number)
        if not merkle.verify(label.root, leaves[number], number, SLOT_LEAVES, inner):
            raise DamagedSlotError(slot)
        return LeafProof(slot, number, leaves[number], label.encode(), inner, path)

    def prove_slot(self, root: bytes, slot: int) -> SlotProof:
        """A whole slot with its way to the root of a version.

        Raises:
            UnknownVersionError: The root is neither settled nor staged.
            IndexError: That version has no such slot.
            DamagedSlotError: The disk does not hold what was committed.
            OSError: The slot could not be read for a reason that may pass.
        """
        label, sealed, path = self._committed(root, slot)
        if slot_root(sealed) != label.root:
            raise DamagedSlotError(slot)
        return SlotProof(slot, sealed, label.encode(), path)

    def verify(self, progress: Progress | None = None) -> list[int]:
        """Read every slot again.

        Returns:
            Those whose bytes are not the committed ones; `mend` seals them again.
        """
        bad = []
        total = len(self)
        for slot in range(total):
            # What is being settled differs from its row for a moment, so that a bad one is looked at again.
            if not self._is_whole(slot):
                with self._seal_lock:
                    if not self._is_whole(slot):
                        bad.append(slot)
            if progress is not None:
                progress((slot + 1) * SLOT_BYTES, total * SLOT_BYTES)
        return bad

    def _key(self, slot: int, named: bytes) -> bytes:
        return slot_key(self._public_key, self._chain_id, slot, self._log_n, named)

    def _is_whole(self, slot: int) -> bool:
        with self._lock:
            label = self._index.label(slot)
            try:
                return label is None or slot_root(self._files.read(slot)) == label.root
            except DamagedSlotError:
                return False

    def _committed(self, root: bytes, slot: int) -> tuple[Label, bytes, list[bytes]]:
        with self._lock:
            staged, settled = self.staged, self.settled
            if staged is not None and staged.root == root:
                self._check_slot(slot, staged.slots)
                path = self._tree.prove(slot, staged.slots, self._changes)
                if self._changes.touch(0, slot):
                    return *self._newest(slot), path
            elif settled.root == root:
                self._check_slot(slot, settled.slots)
                path = self._tree.prove(slot, settled.slots)
            else:
                raise UnknownVersionError(root)
            return *self._standing(slot), path

    def _newest(self, slot: int) -> tuple[Label, bytes]:
        pending = self._index.pending(slot)
        if pending is not None:
            return pending.label, self._files.read_pending(slot, pending.file)
        return self._standing(slot)

    def _standing(self, slot: int) -> tuple[Label, bytes]:
        label = self._index.label(slot)
        assert label is not None  # noqa: S101 - the tree has exactly the rows
        return label, self._files.read(slot)

    @staticmethod
    def _check_slot(slot: int, slots: int) -> None:
        if not 0 <= slot < slots:
            message = f"there is no slot {slot} among {slots}"
            raise IndexError(message)
