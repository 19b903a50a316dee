"""What a keeper shows of its slots, and why it cannot; nothing of it is checked yet (`storage.slot_tree` checks)."""

from __future__ import annotations

from dataclasses import dataclass

from storage.errors import StorageError


class UnknownVersionError(StorageError):
    """The slots cannot be proven for that root: it is neither the settled nor the staged one."""

    def __init__(self, root: bytes) -> None:
        super().__init__(f"no version of the slots has the root {root.hex()}")
        self.root = root


class SlotBusyError(StorageError):
    """The slot was replaced and staged already; it can be replaced again once that is settled."""

    def __init__(self, slot: int) -> None:
        super().__init__(f"slot {slot} waits to be settled")
        self.slot = slot


@dataclass(frozen=True, slots=True)
class LeafProof:
    """A leaf with the way from it to the committed root.

    Attributes:
        slot: Its number.
        number: The leaf's number in the slot.
        leaf: 4 KiB.
        label: 72 bytes.
        inner: The hashes within the slot, the lowest first.
        path: The hashes from the label to the root.
    """

    slot: int
    number: int
    leaf: bytes
    label: bytes
    inner: list[bytes]
    path: list[bytes]


@dataclass(frozen=True, slots=True)
class SlotProof:
    """A whole slot with the way from its label to the committed root."""

    slot: int
    sealed: bytes
    label: bytes
    path: list[bytes]
