"""Whose turn it is, of many that wait for one rate: who had none for the longest; pure."""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from swarm.limits.rate import Bucket

MAX_WAIT_SECONDS: Final = 1.0
"""Before a wait is looked at again: the rate may have changed."""


class Place:
    """One that takes turns; who leaves the line and comes back is no further behind for it.

    Args:
        number: Of the turn that it took last, or of its beginning.
        wake: Called when its turn may have come.
    """

    __slots__ = ("number", "wake")

    def __init__(self, number: int, wake: Callable[[], None]) -> None:
        self.number = number
        self.wake = wake


class Turns:
    """The line before one rate.

    The first in it looks again as soon as the rate allows; the others are woken when they become the first.

    Args:
        bucket: The rate; who takes a turn also takes its bytes.
    """

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._line: list[Place] = []
        self._last = 0

    def place(self, wake: Callable[[], None]) -> Place:
        """A new one, behind all that wait now."""
        self._last += 1
        return Place(self._last, wake)

    def wait(self, now: float, place: Place) -> float:
        """Seconds until it is worth to look again; 0: it is its turn. Who waits stands in the line until `took` or `leave`.

        Args:
            now: Seconds, of a clock that never goes back.
            place: Whose turn is meant.
        """
        if not self._bucket.rate:
            return 0.0
        wait = min(self._bucket.wait(now), MAX_WAIT_SECONDS)
        is_first = not self._line or place.number <= self._line[0].number
        if is_first and not wait:
            return 0.0
        if self._find(place) is None:
            insort(self._line, place, key=_number)
        return wait if is_first else MAX_WAIT_SECONDS

    def took(self, place: Place) -> None:
        """It had its turn, and is behind all others now."""
        self.leave(place)
        self._last += 1
        place.number = self._last

    def leave(self, place: Place) -> None:
        """It does not wait, for now."""
        if (at := self._find(place)) is not None:
            del self._line[at]
            if at == 0 and self._line:
                self._line[0].wake()

    def _find(self, place: Place) -> int | None:
        at = bisect_left(self._line, place.number, key=_number)
        return at if at < len(self._line) and self._line[at] is place else None


def _number(place: Place) -> int:
    return place.number
