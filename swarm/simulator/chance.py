"""Numbers from a seed that are the same on every machine and under every version of Python.

Only `getrandbits` is asked of the library: what it promises never changes, and integers do not round.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")
MILLION = 1_000_000
"""Shares are counted in parts of it."""


class Chance:
    """One stream of draws.

    Args:
        labels: What it is for; equal labels give equal draws.
    """

    def __init__(self, *labels: object) -> None:
        seed = "/".join(str(label) for label in labels)
        self._bits = random.Random(seed).getrandbits  # noqa: S311 - a simulation, and it has to repeat

    def below(self, count: int) -> int:
        """A number from 0 to `count - 1`; with 64 bits drawn, the bias is nil."""
        return self._bits(64) * count >> 64

    def between(self, low: int, high: int) -> int:
        """A number from `low` to `high`, both possible."""
        return low + (self._bits(64) * (high - low + 1) >> 64)

    def happens(self, share: int) -> bool:
        """Whether an event of so many parts in a million happens; nothing is drawn for none."""
        return share > 0 and self.below(MILLION) < share

    def pick(self, items: Sequence[T]) -> T:
        """One of them."""
        return items[self.below(len(items))]

    def sample(self, items: Sequence[T], count: int) -> list[T]:
        """Some of them, each once."""
        left = list(items)
        return [left.pop(self.below(len(left))) for _ in range(count)]

    def bytes(self, count: int) -> bytes:
        """So many random bytes."""
        return self._bits(8 * count).to_bytes(count, "big")

    def normal(self, deviation: int) -> int:
        """Near enough to a normal distribution: the sum of twelve uniform draws."""
        whole = sum(self._bits(20) for _ in range(12)) - (6 << 20)
        return whole * deviation >> 20

    def quantiles(self, least: int, median: int, late: int, most: int) -> int:
        """A value whose median and 99th percentile are given, straight lines between."""
        at = self.below(1000)
        if at < 500:
            return self.between(least, median)
        return self.between(median, late) if at < 990 else self.between(late, most)
