"""What names point to, by a ledger that is level with its peers'."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from swarm import models
from swarm.errors import NetworkError

if TYPE_CHECKING:
    from storage import cid as cids
    from swarm.control.api import Progress
    from swarm.node import Node

CATCH_UP_SECONDS = 20.0
"""A node that is still behind its peers after so long answers from what it has, and names its height."""
SYNC_SECONDS = 0.2


class Level:
    """Waits for the newest blocks, and reads names in them.

    Args:
        node: Whose ledger.
    """

    def __init__(self, node: Node) -> None:
        self._node = node

    async def look_up(self, name: str, version: int | None, progress: Progress) -> cids.Cid:
        """What a name points to, with the ledger's proof."""
        return (await self.prove(name, version, progress)).entry.root

    async def caught_up(self, progress: Progress) -> None:
        """Wait, within bounds, until this node holds the blocks that its peers hold."""
        node = self._node
        start = node.heights.height
        with trio.move_on_after(CATCH_UP_SECONDS):
            while not node.sync.caught_up.is_set() or node.heights.height < node.best_head():
                progress("sync", node.heights.height - start, max(0, node.best_head() - start))
                with trio.move_on_after(SYNC_SECONDS):
                    await node.heights.above(node.heights.height)

    async def prove(self, name: str, version: int | None, progress: Progress) -> models.ProvenName:
        """A proof against the newest block, or the next one where it is final only by its descendant.

        Args:
            name: Which.
            version: Of it; None is the latest.
            progress: Told while blocks come.

        Raises:
            NotFoundError: There is no such name or version.
            NetworkError: The next block does not come.
        """
        await self.caught_up(progress)
        ledger, heights = self._node.ledger, self._node.heights
        with trio.move_on_after(CATCH_UP_SECONDS):
            while True:
                height = heights.height
                proven = await trio.to_thread.run_sync(models.prove, ledger, name, version)
                if proven is not None:
                    return proven
                await heights.above(height)
        message = f"no block that proves {name} came within {CATCH_UP_SECONDS:.0f} s"
        raise NetworkError(message, "see `swarm status`: is any peer connected?")
