"""Sealed slots on a disk: lent space that can be proven, with chunks in it or zeros.

A slot counts once its row is in the database, and its bytes are durable before that: what a crash tore is sealed again.

What is committed on the ledger must stay provable until nobody asks for it, while the store goes on changing.
So there are at most two versions, each a root and a number of slots:

- **settled** is what the slot files hold; slots that are sealed after it are appended, and change nothing of it.
- **staged** is settled, with the replaced slots in their next form and as many appended ones as were sealed by then.

`replace` writes the next form beside the old; `stage` freezes what was replaced and gives the root to commit;
`settle`, called when the ledger counts that root and no audit asks for the one before, moves the next forms in.
Both versions can be proven until then, also after a crash at any point.

A slot and a slot that waits to take its place are two slots on the disk, and are counted as two (`storage.slot_space`).
Slots are given back from the end, and never one that holds a chunk or is about to.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, TypeAlias

from storage import canonical, merkle
from storage import cid as cids
from storage.cid import Cid
from storage.errors import (
    ChunkNotFoundError,
    ChunkTooLargeError,
    CorruptChunkError,
    LogError,
    StorageError,
)
from storage.files import DISK
from storage.sealing import SLOT_BYTES, SLOT_LEAVES, seal, slot_key, unseal
from storage.slot_files import DamagedSlotError, SlotFiles
from storage.slot_index import ROW_BYTES, Pending, SlotIndex, Version
from storage.slot_proofs import LeafProof, SlotBusyError, SlotProof, UnknownVersionError
from storage.slot_space import Unbounded
from storage.slot_tree import (
    MAX_SLOTS,
    Changes,
    Label,
    SlotTree,
    holds,
    named,
    slot_leaves,
    slot_root,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from storage.blockstore import Progress
    from storage.files import Files
    from storage.slot_space import Space

__all__ = [
    "SLOT_COST",
    "Chunk",
    "DamagedSlotError",
    "LeafProof",
    "SlotBusyError",
    "SlotProof",
    "SlotStore",
    "UnknownVersionError",
    "Version",
]

Chunk: TypeAlias = tuple[Cid, bytes]

SLOT_COST: Final = SLOT_BYTES + ROW_BYTES
"""Bytes that a slot takes on the disk."""


class SlotStore:
    """The sealed slots of one keeper on one chain; thread safe.

    Reads wait for no sealing. Slots are sealed one at a time.

    Args:
        folder: Where it lives; made if it is not there.
        public_key: The keeper's, 32 bytes.
        chain_id: 32 bytes.
        log_n: The chain's `seal_log_n`.
        passes: The chain's `seal_passes`.
        space: Asked before bytes are written, and told of those that are gone.
        files: How slots are written; a test puts a failing disk here.

    Raises:
        StoreLockedError: Another process has it open.
        LogError: It was sealed for another key, chain or cost, or its database is damaged.
    """

    def __init__(
        self,
        folder: Path,
        public_key: bytes,
        chain_id: bytes,
        log_n: int,
        passes: int,
        *,
        space: Space | None = None,
        files: Files = DISK,
    ) -> None:
        self._public_key = public_key
        self._chain_id = chain_id
        self._log_n = log_n
        self._passes = passes
        self._lock = threading.RLock()
        self._seal_lock = threading.RLock()
        self._tree = SlotTree()
        self._changes = Changes({})
        self._space: Space = space or Unbounded()
        self._lost: set[Cid] = set()
        self._files = SlotFiles(folder, files)
        owner = canonical.encode([1, public_key, chain_id, log_n, passes])
        self._index = SlotIndex(folder, owner)
        try:
            self._load()
        except BaseException:
            self._index.close()
            raise
        self._space.found(self.bytes_used)

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

    def read_chunk(self, slot: int) -> bytes:
        """Unseal the chunk that a slot holds, or will.

        Raises:
            IndexError: There is no such slot.
            StorageError: It holds zeros.
            CorruptChunkError: What the disk gave back does not hash to the CID.
        """
        with self._lock:
            self._check_slot(slot, len(self))
            label, sealed = self._newest(slot)
        if label.cid is None:
            message = f"slot {slot} holds zeros"
            raise StorageError(message)
        content = unseal(self._key(slot, label.named), sealed, self._passes)
        if not holds(label, content):
            raise CorruptChunkError(cids.text(label.cid))
        return content[: label.length]

    def get(self, cid: Cid) -> bytes:
        """A chunk by its CID.

        Raises:
            ChunkNotFoundError: No slot holds it.
            CorruptChunkError: What the disk gave back does not hash to the CID; `length` says so from then on.
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

    def prove(self, root: bytes, slot: int, number: int) -> LeafProof:
        """A leaf with its way to the root of a version.

        Raises:
            UnknownVersionError: The root is neither settled nor staged.
            IndexError: That version has no such slot, or a slot no such leaf.
            DamagedSlotError: The disk does not hold what was committed.
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
        """
        label, sealed, path = self._committed(root, slot)
        if slot_root(sealed) != label.root:
            raise DamagedSlotError(slot)
        return SlotProof(slot, sealed, label.encode(), path)

    def append(
        self, chunk: Chunk | None = None, is_stopped: Callable[[], bool] = lambda: False
    ) -> int:
        """Seal the next slot and keep it; it is durable when this returns.

        Args:
            chunk: What it holds, with its CID; None for zeros.
            is_stopped: Asked every millisecond or so whether to give it up.

        Returns:
            Its number.

        Raises:
            QuotaError: There is no room; nothing has changed.
            DiskFullError: The disk is full; nothing has changed.
            SealingStoppedError: `is_stopped` said so; nothing has changed.
        """
        with self._seal_lock:
            slot = len(self)
            if slot >= MAX_SLOTS:
                message = f"a keeper has {MAX_SLOTS:,} slots at most"
                raise StorageError(message)
            with self._taken():
                label, sealed = self._seal(slot, chunk, is_stopped)
                self._files.write(slot, sealed)
                with self._lock:
                    with self._index.transaction():
                        self._index.put(slot, label)
                    self._tree.append(label.encode())
            return slot

    def replace(self, slot: int, chunk: Chunk | None) -> None:
        """Seal a slot anew with a chunk, or with zeros to take one out; it takes its place when settled.

        Raises:
            IndexError: There is no such slot.
            SlotBusyError: It was replaced and staged, and is not settled yet.
            QuotaError: There is no room for both forms; nothing has changed.
            DiskFullError: The disk is full; nothing has changed.
        """
        with self._seal_lock:
            self._check_slot(slot, len(self))
            with self._lock:
                old, standing = self._index.pending(slot), self._index.label(slot)
            if old is not None and old.staged:
                raise SlotBusyError(slot)
            label, sealed = self._seal(slot, chunk)
            if label == (standing if old is None else old.label):
                return
            if label == standing:
                with self._lock, self._index.transaction():
                    self._index.drop_pending(slot)
            else:
                self._wait(slot, label, sealed)
            if old is not None:
                self._space.give(self._drop([old]))

    def stage(self, slots: int | None = None) -> Version:
        """Freeze what was replaced, and give what is to be committed.

        Args:
            slots: How many; all that are sealed where none are told, and never less than were settled (`shrink`).

        Raises:
            StorageError: A version is staged already; settle it or take it back.
        """
        with self._seal_lock, self._lock:
            if self.staged is not None:
                message = "a version of the slots is staged already"
                raise StorageError(message)
            count = len(self) if slots is None else slots
            if not self.settled.slots <= count <= len(self):
                message = f"{count} slots cannot be staged: {self.settled.slots} to {len(self)} can"
                raise StorageError(message)
            changes = _changes([one for one in self._index.all_pending() if one.slot < count])
            version = Version(self._tree.root(count, changes), count)
            with self._index.transaction():
                self._index.stage(version)
            self._changes = changes
            return version

    def unstage(self) -> None:
        """Take the staged version back: it was never committed. What was replaced waits for the next one."""
        with self._seal_lock, self._lock, self._index.transaction():
            self._refuse_applying()
            self._index.unstage()

    def settle(self, root: bytes) -> None:
        """Make the staged version the settled one; the one before can no longer be proven. Again does nothing.

        Raises:
            UnknownVersionError: The root is neither staged nor settled.
        """
        with self._seal_lock:
            staged = self.staged
            if staged is None or staged.root != root:
                if self.settled.root != root:
                    raise UnknownVersionError(root)
                return
            with self._lock, self._index.transaction():
                self._index.apply()
            self._space.give(self._apply(staged))

    def adopt(self, slots: int) -> Version:
        """Make the first `slots`, as the slot files hold them, the settled version: the ledger counts them.

        A staged version is taken back; what was replaced waits for the next.

        Returns:
            The settled version.
        """
        with self._seal_lock, self._lock:
            version = Version(self._tree.root(min(slots, len(self))), min(slots, len(self)))
            with self._index.transaction():
                self._refuse_applying()
                self._index.unstage()
                self._index.settle(version)
            return version

    def shrink(self, slots: int) -> Version:
        """Count the first `slots` only, and give the others back to the disk at once, from the end to the last chunk.

        A staged version that is longer is taken back, and its replaced slots wait for the next.

        Returns:
            The settled version, which is what to commit now.
        """
        with self._seal_lock, self._lock:
            slots = max(0, min(slots, len(self)))
            with self._index.transaction():
                self._refuse_applying()
                if self.staged is not None and self.staged.slots > slots:
                    self._index.unstage()
                if self.settled.slots > slots:
                    self._index.settle(Version(self._tree.root(slots), slots))
                before, kept = self.bytes_used, max(slots, self._index.top())
                self._index.truncate(kept)
            self._tree.truncate(kept)
            self._trim()
            self._space.give(before - self.bytes_used)
            return self.settled

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

    def mend(self, slot: int, chunk: Chunk | None = None) -> None:
        """Seal a damaged slot again as it was; its root and the commitment stay.

        Args:
            slot: Its number.
            chunk: What it held, fetched from elsewhere; None for zeros.

        Raises:
            StorageError: It held something else, and is not about to hold this.
        """
        with self._seal_lock:
            self._check_slot(slot, len(self))
            label, sealed = self._seal(slot, chunk)
            with self._lock:
                standing, pending = self._index.label(slot), self._index.pending(slot)
            if pending is not None and pending.label == label:
                self._files.write_pending(pending.file, sealed)
            elif standing == label:
                self._files.write(slot, sealed)
            else:
                message = f"slot {slot} held something else"
                raise StorageError(message)
            if chunk is not None:
                with self._lock:
                    self._lost.discard(chunk[0])

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

    def close(self) -> None:
        """Let go of the folder."""
        with self._seal_lock, self._lock:
            self._index.close()

    @contextmanager
    def _taken(self) -> Iterator[None]:
        self._space.take(SLOT_COST)
        try:
            yield
        except BaseException:
            self._space.give(SLOT_COST)
            raise

    def _wait(self, slot: int, label: Label, sealed: bytes) -> None:
        name = f"{slot}-{label.root.hex()[:16]}.slot"
        with self._taken():
            try:
                self._files.write_pending(name, sealed)
                with self._lock, self._index.transaction():
                    self._index.add_pending(slot, label, name)
            except BaseException:
                with suppress(OSError):
                    self._files.drop_pending(name)
                raise

    def _load(self) -> None:
        for expected, (slot, label) in enumerate(self._index.labels()):
            if slot != expected:
                message = f"the row of slot {expected} is gone"
                raise LogError(message)
            self._tree.append(label.encode())
        settled, staged = self.settled, self.staged
        if settled.slots > len(self) or settled.root != self._tree.root(settled.slots):
            message = "the rows of the slots are not those that were committed"
            raise LogError(message)
        if staged is not None and self._index.is_applying:
            self._apply(staged)
        self._changes = _changes([one for one in self._index.all_pending() if one.staged])
        self._trim()

    def _apply(self, staged: Version) -> int:
        """Move the staged forms into the slot files; done again from the start after a crash.

        Returns:
            The bytes that the disk has back.
        """
        with self._lock:
            moved = [one for one in self._index.all_pending() if one.staged]
        for one in moved:
            self._files.write(one.slot, self._files.read_pending(one.slot, one.file))
        with self._lock:
            with self._index.transaction():
                for one in moved:
                    self._index.put(one.slot, one.label)
                    self._index.drop_pending(one.slot)
                self._index.unstage()
                self._index.settle(staged)
            for one in moved:
                self._tree.replace(one.slot, one.label.encode())
        return self._drop(moved)

    def _drop(self, forms: list[Pending]) -> int:
        """Remove files of forms that wait no more; one that the disk keeps stays counted until this is opened again."""
        dropped = 0
        for one in forms:
            with suppress(OSError):
                self._files.drop_pending(one.file)
                dropped += SLOT_COST
        return dropped

    def _trim(self) -> None:
        """Remove what no row names: torn slots, and slots that were given back."""
        self._files.trim(len(self), {one.file for one in self._index.all_pending()})

    def _key(self, slot: int, named: bytes) -> bytes:
        return slot_key(self._public_key, self._chain_id, slot, self._log_n, named)

    def _seal(
        self, slot: int, chunk: Chunk | None, is_stopped: Callable[[], bool] = lambda: False
    ) -> tuple[Label, bytes]:
        cid, data = (None, b"") if chunk is None else chunk
        if len(data) > SLOT_BYTES:
            raise ChunkTooLargeError(len(data), SLOT_BYTES)
        sealed = seal(self._key(slot, named(cid, len(data))), data, self._passes, is_stopped)
        return Label(slot_root(sealed), cid, len(data)), sealed

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

    def _refuse_applying(self) -> None:
        if self._index.is_applying:
            message = "a version of the slots is half settled; settle it first"
            raise StorageError(message)

    @staticmethod
    def _check_slot(slot: int, slots: int) -> None:
        if not 0 <= slot < slots:
            message = f"there is no slot {slot} among {slots}"
            raise IndexError(message)


def _changes(waiting: list[Pending]) -> Changes:
    return Changes({one.slot: merkle.leaf_hash(one.label.encode()) for one in waiting})
