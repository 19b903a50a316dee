"""Lent space without a disk: slots of zeros, sealed for real with the least cost, and made again whenever they are read.

The labels, the tree over them and every proof are those of `storage`, so that `protocols.audit.verify` decides. What a
seal costs is virtual time, which `lenders` counts; the bytes are worked out in about two milliseconds and forgotten.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from storage.sealing import LEAF_BYTES, SLOT_LEAVES, seal, slot_key
from storage.slot_tree import Label, SlotTree, slot_leaves
from storage.slots import LeafProof, SlotProof, Version

if TYPE_CHECKING:
    from collections.abc import Callable

    Sealer = Callable[[bytes, bytes, int], bytes]

LOG_N: Final = 1
PASSES: Final = 1
"""What a simulated network's genesis says of sealing: the checks are real, the work is not."""
REMEMBERED_SLOTS: Final = 128
"""MiB of sealed bytes of all keepers together that are not made again when they are read again."""


def sealer() -> Sealer:
    """Gives the sealed bytes of a keeper's slot of zeros on a chain, and remembers a few."""

    @lru_cache(REMEMBERED_SLOTS)
    def sealed(key: bytes, chain_id: bytes, slot: int) -> bytes:
        return seal(slot_key(key, chain_id, slot, LOG_N), b"", PASSES)

    return sealed


class SealedSlots:
    """What one keeper has sealed.

    Args:
        key: Its public key.
        chain_id: Of the network.
        sealed: Gives the bytes of a slot.
    """

    def __init__(self, key: bytes, chain_id: bytes, sealed: Sealer) -> None:
        self._key = key
        self._chain_id = chain_id
        self._sealed = sealed
        self._tree = SlotTree()
        self._labels: list[bytes] = []
        self._inner: list[SlotTree] = []
        self.lost: frozenset[int] = frozenset()
        """Slots whose bytes are gone; their labels are still here."""

    def __len__(self) -> int:
        return len(self._labels)

    def grow(self, slots: int) -> None:
        """Seal until there are so many."""
        for slot in range(len(self), slots):
            inner = SlotTree()  # hashes as the tree within a slot does, and remembers it
            for leaf in slot_leaves(self._bytes(slot)):
                inner.append(leaf)
            label = Label(inner.root(SLOT_LEAVES)).encode()
            self._tree.append(label)
            self._labels.append(label)
            self._inner.append(inner)

    def shrink(self, slots: int) -> None:
        """Give back all but the first."""
        self._tree.truncate(slots)
        del self._labels[slots:]
        del self._inner[slots:]

    def version(self, slots: int) -> Version:
        """What is committed for the first slots."""
        return Version(self._tree.root(slots), slots)

    def leaf(self, slots: int, slot: int, number: int) -> LeafProof:
        """A leaf under the root over the first `slots`; zeros stand for what is lost."""
        at = number * LEAF_BYTES
        leaf = bytes(LEAF_BYTES)
        if slot not in self.lost:
            leaf = self._bytes(slot)[at : at + LEAF_BYTES]
        inner = self._inner[slot].prove(number, SLOT_LEAVES)
        path = self._tree.prove(slot, slots)
        return LeafProof(slot, number, leaf, self._labels[slot], inner, path)

    def whole(self, slots: int, slot: int) -> SlotProof | None:
        """A whole slot under the same root; None for one that is lost."""
        if slot in self.lost:
            return None
        path = self._tree.prove(slot, slots)
        return SlotProof(slot, self._bytes(slot), self._labels[slot], path)

    def _bytes(self, slot: int) -> bytes:
        return self._sealed(self._key, self._chain_id, slot)
