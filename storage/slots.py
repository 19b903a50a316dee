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
How they are read and proven is `storage.slot_reading`.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeAlias

from storage import merkle
from storage.cid import Cid
from storage.errors import ChunkTooLargeError, StorageError
from storage.files import DISK
from storage.sealing import SLOT_BYTES, seal
from storage.slot_files import DamagedSlotError
from storage.slot_index import Pending, Version, damaged
from storage.slot_proofs import LeafProof, SlotBusyError, SlotProof, UnknownVersionError
from storage.slot_reading import SLOT_COST, SlotReading
from storage.slot_space import Unbounded
from storage.slot_tree import MAX_SLOTS, Changes, Label, named, slot_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

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


class SlotStore(SlotReading):
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
        super().__init__(folder, public_key, chain_id, log_n, passes, files)
        self._space: Space = space or Unbounded()
        try:
            self._load(folder)
        except BaseException:
            self._index.close()
            raise
        self._space.found(self.bytes_used)

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
                    self._note_whole(label)
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
            with self._lock:
                self._note_whole(label)

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
                with self._lock:
                    with self._index.transaction():
                        self._index.add_pending(slot, label, name)
                    self._note_whole(label)
            except BaseException:
                with suppress(OSError):
                    self._files.drop_pending(name)
                raise

    def _note_whole(self, label: Label) -> None:
        """A slot was sealed with what may have been damaged, here or in a slot that was emptied since."""
        if label.cid is not None:
            self._lost.discard(label.cid)

    def _load(self, folder: Path) -> None:
        for expected, (slot, label) in enumerate(self._index.labels()):
            if slot != expected:
                raise damaged(folder, f"the row of slot {expected} is gone")
            self._tree.append(label.encode())
        settled, staged = self.settled, self.staged
        if settled.slots > len(self) or settled.root != self._tree.root(settled.slots):
            raise damaged(folder, "its rows are not those that were committed")
        if staged is not None and not settled.slots <= staged.slots <= len(self):
            raise damaged(folder, "a version is staged that there are no slots for")
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
            # What the disk has lost is one slot to mend; the others, and what comes after, do not wait for it.
            with suppress(DamagedSlotError):
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

    def _seal(
        self, slot: int, chunk: Chunk | None, is_stopped: Callable[[], bool] = lambda: False
    ) -> tuple[Label, bytes]:
        cid, data = (None, b"") if chunk is None else chunk
        if len(data) > SLOT_BYTES:
            raise ChunkTooLargeError(len(data), SLOT_BYTES)
        sealed = seal(self._key(slot, named(cid, len(data))), data, self._passes, is_stopped)
        return Label(slot_root(sealed), cid, len(data)), sealed

    def _refuse_applying(self) -> None:
        if self._index.is_applying:
            message = "a version of the slots is half settled; settle it first"
            raise StorageError(message)


def _changes(waiting: list[Pending]) -> Changes:
    return Changes({one.slot: merkle.leaf_hash(one.label.encode()) for one in waiting})
