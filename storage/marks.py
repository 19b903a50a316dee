"""Which of the chunks that a collection found are alive: a sorted list of numbers and one bit for each.

Eight bytes and a bit a chunk: 8 MB for a million, and nothing on the disk.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Marks:
    """Numbers in ascending order, none of them marked at first; exact."""

    def __init__(self) -> None:
        self._numbers = array("Q")
        self._bits = bytearray()

    def __len__(self) -> int:
        return len(self._numbers)

    def __contains__(self, number: int) -> bool:
        return self._at(number) is not None

    def extend(self, numbers: Iterable[int]) -> None:
        """Add numbers, each larger than those before."""
        self._numbers.extend(numbers)
        self._bits.extend(bytes(-(-len(self._numbers) // 8) - len(self._bits)))

    def mark(self, number: int) -> bool:
        """Mark a number; false if it is none of these, or was marked before."""
        at = self._at(number)
        if at is None or self._bits[at >> 3] >> (at & 7) & 1:
            return False
        self._bits[at >> 3] |= 1 << (at & 7)
        return True

    def is_dead(self, number: int) -> bool:
        """Whether a number is one of these and was not marked."""
        at = self._at(number)
        return at is not None and not self._bits[at >> 3] >> (at & 7) & 1

    def _at(self, number: int) -> int | None:
        at = bisect_left(self._numbers, number)
        return at if at < len(self._numbers) and self._numbers[at] == number else None
