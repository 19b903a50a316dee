"""What the owner of a coded deal holds for its keepers, and when it lets go of it.

A piece is held until a keeper has shown it, and all of them until their deal is over.
A deal that the ledger does not have may still be on its way there: its pieces stay for as long as a transaction can.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from storage.cid import Cid
    from storage.contract import Blockstore
    from swarm.heights import Heights
    from swarm.ledger.state import LedgerView

LABEL: Final = "offer "
"""Before the recipe's CID in hex, of each hold."""
LOOK_BLOCKS: Final = 16
"""Between two looks."""
GRACE_BLOCKS: Final = 256
"""For which a deal that is not on the ledger is waited for; a transaction has expired by then."""


def label(recipe: Cid) -> str:
    """Of the holds of one coded deal."""
    return f"{LABEL}{recipe.hex()}"


class Offers:
    """Lets go of the pieces that need not be held any more.

    Args:
        view: The newest finalized state.
        heights: Tells when that changes.
        store: Where they are held.
        on_release: Called when some were let go.
    """

    def __init__(
        self,
        view: Callable[[], LedgerView],
        heights: Heights,
        store: Blockstore,
        on_release: Callable[[], None],
    ) -> None:
        self._view = view
        self._heights = heights
        self._store = store
        self._on_release = on_release
        self._missed: dict[str, int] = {}

    async def run(self) -> None:
        """Look every few blocks until cancelled."""
        while True:
            height = self._heights.height
            if await trio.to_thread.run_sync(self.let_go, self._view(), height):
                self._on_release()
            await self._heights.above(height + LOOK_BLOCKS - 1)

    def let_go(self, view: LedgerView, height: int) -> int:
        """End the holds that are over at a height; how many there were."""
        held = [(root, name) for root, name in self._store.holds() if name.startswith(LABEL)]
        standing = {label(deal.recipe) for deal in view.deals()} if held else set()
        shown = {duty.root for _, duty in view.duties() if duty.shown} if held else set()
        missing = {name for _, name in held} - standing
        self._missed = {name: self._missed.get(name, height) for name in missing}
        over = [
            (root, name)
            for root, name in held
            if (name in standing and root in shown)
            or (name in missing and height - self._missed[name] >= GRACE_BLOCKS)
        ]
        for root, name in over:
            self._store.release(root, name)
        return len(over)
