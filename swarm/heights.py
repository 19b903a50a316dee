"""The newest finalized height, for tasks that wait for the chain to move."""

from __future__ import annotations

import trio


class Heights:
    """Tells any number of waiting tasks that a block was finalized."""

    def __init__(self, height: int) -> None:
        self.height = height
        self._moved = trio.Event()

    def move(self, height: int) -> None:
        """A block of that height is final; called on the event loop."""
        if height > self.height:
            self.height = height
            moved, self._moved = self._moved, trio.Event()
            moved.set()

    async def above(self, height: int) -> int:
        """Wait until a block higher than `height` is final; the height then."""
        while self.height <= height:
            await self._moved.wait()
        return self.height
