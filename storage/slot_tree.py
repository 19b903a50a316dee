"""What a keeper commits to: a label for each slot, and the Merkle tree over the labels.

    slot root = Merkle root of the slot's 256 leaves of 4 KiB      (the tree of `storage.merkle`)
    label     = slot root (32) || CID of the chunk (36) || its length (u32 BE), or slot root || 40 zero bytes for zeros
    root      = Merkle root over the labels of slots 0 .. n-1, the label being the leaf

The tree keeps the hashes of complete subtrees only. Those never change when slots are appended, so the root and the
proofs of every earlier number of slots can still be given, each with a few hashes made anew on the right edge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from storage import cid as cids
from storage import merkle
from storage.cid import CID_BYTES, Cid
from storage.errors import CidError, StorageError
from storage.merkle import HASH_BYTES, leaf_hash, node_hash
from storage.sealing import LEAF_BYTES, SLOT_BYTES, SLOT_LEAVES, ZEROS

if TYPE_CHECKING:
    from collections.abc import Mapping

LABEL_BYTES: Final = HASH_BYTES + CID_BYTES + 4
MAX_SLOTS: Final = 2**32
"""Of one keeper: 4 PiB."""


@dataclass(frozen=True, slots=True)
class Label:
    """What a slot holds and what its sealed bytes hash to.

    Attributes:
        root: Of the slot's 256 leaves, 32 bytes.
        cid: Of the chunk in it; None for zeros.
        length: Of the chunk in bytes, 0 for zeros.
    """

    root: bytes
    cid: Cid | None = None
    length: int = 0

    @property
    def named(self) -> bytes:
        """What it holds, in the 40 bytes that its key depends on."""
        return named(self.cid, self.length)

    def encode(self) -> bytes:
        """Its 72 bytes."""
        return self.root + self.named

    @classmethod
    def decode(cls, data: bytes) -> Label:
        """Read a label, a stranger's perhaps.

        Raises:
            StorageError: Not 72 bytes, a CID that we do not know, or a length that no slot holds.
        """
        if len(data) != LABEL_BYTES:
            message = f"a label has {LABEL_BYTES} bytes, not {len(data)}"
            raise StorageError(message)
        root, told = data[:HASH_BYTES], data[HASH_BYTES:]
        if told == ZEROS:
            return cls(root)
        length = int.from_bytes(told[CID_BYTES:], "big")
        if length > SLOT_BYTES:
            message = f"no slot holds a chunk of {length:,} bytes"
            raise CidError(message)
        return cls(root, cids.from_bytes(told[:CID_BYTES]), length)


def named(cid: Cid | None, length: int) -> bytes:
    """The 40 bytes that name a slot's content: a chunk's CID and length, or zeros."""
    return ZEROS if cid is None else cid + length.to_bytes(4, "big")


def holds(label: Label, content: bytes) -> bool:
    """Whether unsealed content is what a label says: the chunk of that CID, or nothing, and then zeros."""
    if content[label.length :] != bytes(len(content) - label.length):
        return False
    return label.cid is None or cids.matches(label.cid, memoryview(content)[: label.length])


def slot_leaves(sealed: bytes | memoryview) -> list[bytes]:
    """The 256 leaves of a slot."""
    return [bytes(sealed[at : at + LEAF_BYTES]) for at in range(0, SLOT_BYTES, LEAF_BYTES)]


def slot_root(sealed: bytes | memoryview) -> bytes:
    """The Merkle root of a slot's leaves."""
    return merkle.root(slot_leaves(sealed))


def verify_leaf(root: bytes, leaf: bytes, number: int, proof: list[bytes]) -> bool:
    """Whether 4 KiB are leaf `number` of the slot with that root."""
    return len(leaf) == LEAF_BYTES and merkle.verify(root, leaf, number, SLOT_LEAVES, proof)


def verify_label(root: bytes, slots: int, label: bytes, slot: int, path: list[bytes]) -> bool:
    """Whether a label stands at `slot` of the `slots` that the committed root is over."""
    return len(label) == LABEL_BYTES and merkle.verify(root, label, slot, slots, path)


class Changes:
    """Labels that differ from those in a tree, so that a version is proven without being built.

    Good for as long as the tree changes by appending only: what was hashed once is remembered.

    Args:
        hashes: Of the labels that differ (`merkle.leaf_hash`), by slot.
    """

    def __init__(self, hashes: Mapping[int, bytes]) -> None:
        self.nodes = {(0, slot): hashed for slot, hashed in hashes.items()}
        self._above: dict[int, set[int]] = {0: set(hashes)}

    def touch(self, level: int, index: int) -> bool:
        """Whether a node is above a label that differs."""
        if level not in self._above:
            self._above[level] = {slot >> level for slot in self._above[0]}
        return index in self._above[level]


_NONE: Final = Changes({})


class SlotTree:
    """The hashes above the labels, in memory: 64 bytes a slot, which is 31 MB for 500 GB."""

    def __init__(self) -> None:
        self._levels: list[bytearray] = [bytearray()]

    def __len__(self) -> int:
        return len(self._levels[0]) // HASH_BYTES

    def append(self, label: bytes) -> None:
        """Add the label of the next slot."""
        hashed = leaf_hash(label)
        for level in range(len(self._levels) + 1):
            if level == len(self._levels):
                self._levels.append(bytearray())
            hashes = self._levels[level]
            hashes += hashed
            if (len(hashes) // HASH_BYTES) % 2:
                return
            hashed = node_hash(bytes(hashes[-2 * HASH_BYTES : -HASH_BYTES]), hashed)

    def replace(self, slot: int, label: bytes) -> None:
        """Change the label of a slot; log2(slots) hashes."""
        self._put(0, slot, leaf_hash(label))
        for level in range(1, len(self._levels)):
            slot >>= 1
            if (slot + 1) * HASH_BYTES > len(self._levels[level]):
                return
            left = self._at(level - 1, 2 * slot)
            self._put(level, slot, node_hash(left, self._at(level - 1, 2 * slot + 1)))

    def truncate(self, slots: int) -> None:
        """Forget all labels from number `slots` on."""
        for level, hashes in enumerate(self._levels):
            del hashes[(slots >> level) * HASH_BYTES :]
        while len(self._levels) > 1 and not self._levels[-1]:
            self._levels.pop()

    def root(self, slots: int, changes: Changes = _NONE) -> bytes:
        """The root over the first `slots` labels."""
        if slots == 0:
            return merkle.root([])
        return self._node((slots - 1).bit_length(), 0, slots, changes)

    def prove(self, slot: int, slots: int, changes: Changes = _NONE) -> list[bytes]:
        """The hashes from a label to the root over the first `slots`, the lowest first.

        Raises:
            IndexError: There is no such slot among them.
        """
        if not 0 <= slot < slots <= len(self):
            message = f"there is no slot {slot} among {slots}"
            raise IndexError(message)
        path = []
        level, last = 0, slots - 1
        while last:
            if slot ^ 1 <= last:
                path.append(self._node(level, slot ^ 1, slots, changes))
            level, slot, last = level + 1, slot >> 1, last >> 1
        return path

    def _node(self, level: int, index: int, slots: int, changes: Changes) -> bytes:
        """The hash over slots `index << level` and on, as many as there are below that node of `slots`."""
        is_whole = (index + 1) << level <= slots
        if is_whole:
            if not changes.touch(level, index):
                return self._at(level, index)
            if (level, index) in changes.nodes:
                return changes.nodes[level, index]
        hashed = self._node(level - 1, 2 * index, slots, changes)
        if (2 * index + 1) << (level - 1) < slots:
            hashed = node_hash(hashed, self._node(level - 1, 2 * index + 1, slots, changes))
        if is_whole:
            changes.nodes[level, index] = hashed
        return hashed

    def _at(self, level: int, index: int) -> bytes:
        return bytes(self._levels[level][index * HASH_BYTES : (index + 1) * HASH_BYTES])

    def _put(self, level: int, index: int, hashed: bytes) -> None:
        self._levels[level][index * HASH_BYTES : (index + 1) * HASH_BYTES] = hashed
