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
- A slot that was replaced lies on the disk twice until the ledger counts its next form; a quarter of the margin is for that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from storage.slots import SLOT_COST

__all__ = ["BATCH_PARTS", "MARGIN_PARTS", "MAX_MARGIN", "SLOT_COST", "Room"]

MARGIN_PARTS: Final = 5
MAX_MARGIN: Final = 4 * 2**30
BATCH_PARTS: Final = 4
"""Of the margin, for slots that wait to take the place of others."""


@dataclass(frozen=True, slots=True)
class Room:
    """What is lent and what is taken, in bytes unless it says otherwise.

    Attributes:
        lent: What the person said.
        chunks: Used by the store and promised to chunks on their way.
        shelf: Files unpacked for the worker.
        coming: What is to be written and for which the store had no room.
        slots: How many are sealed.
        disk_free: Of the disk.
        keep_free: What stays free of the disk.
        waiting: How many slots wait to take the place of others.
    """

    lent: int
    chunks: int
    shelf: int
    coming: int
    slots: int
    disk_free: int
    keep_free: int
    waiting: int = 0

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
    def batch(self) -> int:
        """How many slots may wait to take the place of others at once."""
        return max(1, self.margin // BATCH_PARTS // SLOT_COST)

    def _fitting(self, margin: int) -> int:
        by_number = self.lent - self.chunks - self.shelf - self.coming - margin
        by_number -= self.waiting * SLOT_COST
        spare = self.disk_free - self.keep_free - self.coming - margin
        return max(0, min(by_number, self.slots * SLOT_COST + spare) // SLOT_COST)
