"""When work that failed is tried again: twice with the next block, then after two blocks, four, eight, and so on.

What comes back, a disk or a network, is used soon, and what does not costs no more than was lost already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection

_K = TypeVar("_K")

MAX_FAILURES: Final = 3
"""Work that failed so often waits two blocks, and after each further failure twice as many as before."""


class Tries(Generic[_K]):
    """How often work failed, and from which height on it is tried again."""

    def __init__(self) -> None:
        self._failures: dict[_K, int] = {}
        self._from: dict[_K, int] = {}

    def are_due(self, work: _K, height: int) -> bool:
        """Whether work may be tried at a height."""
        return height >= self._from.get(work, 0)

    def failures(self, work: _K) -> int:
        """How often it failed."""
        return self._failures.get(work, 0)

    def failed(self, work: _K, height: int) -> None:
        """Note a failure."""
        self._failures[work] = failures = self.failures(work) + 1
        if failures >= MAX_FAILURES:
            self._from[work] = height + 2 ** (failures - MAX_FAILURES + 1)

    def keep(self, works: Collection[_K] = ()) -> None:
        """Forget all others."""
        self._failures = {one: count for one, count in self._failures.items() if one in works}
        self._from = {one: height for one, height in self._from.items() if one in works}
