"""Notes what became of this node's contributions as rounds end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import structlog
import trio

from swarm.ledger.keys import history_key
from swarm.receipts.receipt import UPDATE, receipts_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from protocols.signing import Signer
    from swarm.heights import Heights
    from swarm.ledger.application import LedgerApplication
    from swarm.receipts.book import Book
    from swarm.receipts.receipt import Receipt

    Json = dict[str, Any]

LOOK_BACK: Final = 256
"""Rounds of each task that a node which was away looks through."""

_log = structlog.get_logger("swarm.receipts")


class Receipts:
    """Keeps the receipts of one node.

    Args:
        signer: Its key.
        ledger: What rounds came to.
        heights: Tells when it changes.
        book: Where they are kept.
    """

    def __init__(
        self, signer: Signer, ledger: LedgerApplication, heights: Heights, book: Book
    ) -> None:
        self._signer = signer
        self._ledger = ledger
        self._heights = heights
        self._book = book
        self._disk = trio.CapacityLimiter(1)
        self._seen: dict[bytes, int] = {}
        self._noted: set[tuple[str, int, str]] = set()
        self.last: Json | None = None
        """The newest one; of a round's two the update's."""

    async def read(self) -> list[Json]:
        """What is kept, the oldest first."""
        return await trio.to_thread.run_sync(self._book.read, limiter=self._disk)

    async def run(self) -> None:
        """Note rounds as they end; runs until cancelled."""
        kept = await self.read()
        self.last = newest(kept)
        self._noted = {(one["task"], one["round"], one["kind"]) for one in kept}
        tasks = await trio.to_thread.run_sync(self._ledger.view().tasks)
        self._seen = {one.id: max(0, one.done - LOOK_BACK) for one in tasks}
        height = -1
        while True:
            height = await self._heights.above(height)
            found = await trio.to_thread.run_sync(self._ended, limiter=self._disk)
            if found:
                signed = [one.sign(self._signer) for one in found]
                await trio.to_thread.run_sync(self._book.add, signed, limiter=self._disk)
                self._noted |= {one.subject for one in found}
                self.last = newest([*([self.last] if self.last else []), *signed])
                _log.info("receipts.noted", count=len(found))

    def _ended(self) -> list[Receipt]:
        """Receipts of the rounds that ended since the last look; a task that is over is looked at once more."""
        view, found = self._ledger.view(), []
        opened = {*view.open_tasks()}
        for identifier in [*self._seen, *(opened - self._seen.keys())]:
            task = view.task(identifier)
            if task is None:
                continue
            for number in range(self._seen.get(identifier, 0) + 1, task.done + 1):
                settled = view.settled(identifier, number)
                if settled is not None:
                    key, block = history_key(identifier, number), self._ledger.finalized()
                    found += receipts_of(
                        settled,
                        task.name,
                        key,
                        self._ledger.chain_id,
                        self._signer.public_key,
                        block,
                    )
            if identifier in opened:
                self._seen[identifier] = task.done
            else:
                self._seen.pop(identifier, None)
        return [one for one in found if one.subject not in self._noted]


def newest(told: Sequence[Json]) -> Json | None:
    """The receipt of the round that ended last, of its update where there are two; None of none."""
    return max(told, key=lambda one: (one["height"], one["kind"] == UPDATE), default=None)
