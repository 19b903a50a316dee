"""How what a person lends is divided: chunks and unpacked files as they come, sealed slots in the rest. Pure.

One number covers the store of chunks, the shelf of unpacked files, and the sealed slots.
Slots are the part that can be made again, so they give way:

- They grow into what is lent until a margin is left: a fifth of it, at most 4 GiB. The margin takes new chunks at once.
- When chunks have taken half of the margin, slots are given back until the whole margin is free again.
- Pieces that this keeper has a duty to fetch count as chunks as soon as the store has promised them room; and where it
  has none, before they are here.
- The disk's reserve, which the store keeps free whatever is lent, bounds slots like the number does.
- Slots that the ledger counts are given back once it counts fewer, unless half of the reserve is gone: a full disk is
  worse than a strike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from storage.sealing import SLOT_BYTES
from storage.slot_index import ROW_BYTES

SLOT_COST: Final = SLOT_BYTES + ROW_BYTES
"""Bytes that a slot takes on the disk."""
MARGIN_PARTS: Final = 5
MAX_MARGIN: Final = 4 * 2**30


@dataclass(frozen=True, slots=True)
class Room:
    """What is lent and what is taken, in bytes unless it says otherwise.

    Attributes:
        lent: What the person said.
        chunks: Used by the store and promised to chunks on their way.
        shelf: Files unpacked for the worker.
        coming: Pieces that are to be fetched and for which the store had no room.
        slots: How many are sealed.
        disk_free: Of the disk.
        keep_free: What stays free of the disk.
    """

    lent: int
    chunks: int
    shelf: int
    coming: int
    slots: int
    disk_free: int
    keep_free: int

    @property
    def margin(self) -> int:
        """What stays free for chunks."""
        return min(self.lent // MARGIN_PARTS, MAX_MARGIN)

    @property
    def goal(self) -> int:
        """Slots to have, with the whole margin free."""
        return self._fitting(self.margin)

    @property
    def stay(self) -> int:
        """Of the slots that are sealed, those that stay."""
        return self.slots if self.slots <= self._fitting(self.margin // 2) else self.goal

    @property
    def is_urgent(self) -> bool:
        """Whether half of the disk's reserve is gone."""
        return self.disk_free < self.keep_free // 2

    @property
    def chunk_limit(self) -> int:
        """What the store may use: slots give way to it, and the shelf does not."""
        return max(0, self.lent - self.shelf)

    def _fitting(self, margin: int) -> int:
        by_number = self.lent - self.chunks - self.shelf - self.coming - margin
        spare = self.disk_free - self.keep_free - self.coming - margin
        return max(0, min(by_number, self.slots * SLOT_COST + spare) // SLOT_COST)
