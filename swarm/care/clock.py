"""How far this machine's clock is from those of others, by the times that other leaders write into blocks; pure.

A block becomes final a moment after its leader wrote its time, so a true clock shows a small gap above zero.
Blocks that come by catching up are old and say nothing.
"""

from __future__ import annotations

import statistics
from collections import deque
from typing import Final

BLOCKS: Final = 32
"""Whose gaps are remembered."""
ENOUGH: Final = 4
"""With fewer nothing is said."""


class ClockGaps:
    """Gaps of the newest blocks of other leaders."""

    def __init__(self) -> None:
        self._gaps: deque[int] = deque(maxlen=BLOCKS)

    def note(self, here_ms: int, block_ms: int) -> None:
        """A block of another leader has just become final here.

        Args:
            here_ms: This machine's clock, UTC.
            block_ms: The block's time.
        """
        self._gaps.append(here_ms - block_ms)

    @property
    def median_ms(self) -> int | None:
        """This clock less theirs, with the time that blocks take to become final; None: not known."""
        if len(self._gaps) < ENOUGH:
            return None
        return int(statistics.median_low(self._gaps))
