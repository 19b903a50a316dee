"""Virtual time: a heap of what happens when, in milliseconds; of equal times, what was put in first."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

from swarm.simulator.errors import SimulationError

if TYPE_CHECKING:
    from collections.abc import Callable


class Schedule:
    """The clock and what is still to come.

    Args:
        most: Events after which the run is given up: messages that beget messages never end.
    """

    def __init__(self, most: int) -> None:
        self.now = 0
        self.happened = 0
        self._most = most
        self._order = 0
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []

    def at(self, when: int, action: Callable[..., None], *arguments: Any) -> None:  # noqa: ANN401 - the action's own
        """Do something at a time; one that is past means now."""
        self._order += 1
        heapq.heappush(self._heap, (max(when, self.now), self._order, action, arguments))

    def after(self, delay: int, action: Callable[..., None], *arguments: Any) -> None:  # noqa: ANN401 - the action's own
        """Do something so many milliseconds from now."""
        self.at(self.now + delay, action, *arguments)

    def run(self, until: int) -> None:
        """Let everything happen up to a time, which it then is.

        Raises:
            SimulationError: More happened than any run in order needs.
        """
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.now, _, action, arguments = heapq.heappop(heap)
            self.happened += 1
            if self.happened > self._most:
                message = f"more than {self._most:,} events in {self.now:,} ms: a storm of messages"
                raise SimulationError(message)
            action(*arguments)
        self.now = until
