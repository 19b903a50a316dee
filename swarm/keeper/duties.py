"""The pieces that the ledger gave this keeper: fetched, or made again from others, held, announced, and let go.

A hold is written before the first byte is fetched, so that a restart goes on with what is here.
Coded pieces go on into sealed slots once they are here (`swarm.keeper.cellar`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import structlog
import trio

from protocols import signing
from protocols.exchange.errors import ExchangeError
from protocols.exchange.service import PATIENCE_SECONDS
from storage import cid as cids
from storage.erasure import MAX_RECIPE_BYTES, Recipe, rebuild_piece
from storage.errors import QuotaError, StorageError
from swarm.errors import SwarmError
from swarm.keeper import core

if TYPE_CHECKING:
    from collections.abc import Callable

    from protocols.exchange.service import ExchangeService
    from protocols.transport import PeerId, Transport
    from storage.cid import Cid
    from storage.contract import Blockstore
    from swarm.heights import Heights
    from swarm.ledger.keeping import Deal, Duty
    from swarm.ledger.state import LedgerView

MAX_FETCHES: Final = 2
"""Pieces at once; and as many of those that could not be had before, which keep no new one waiting."""
AGAIN_SECONDS: Final = 15.0
"""Before a piece that could not be had is tried again."""
PIECE_PATIENCE: Final = 10.0
"""Seconds without a chunk after which another piece of a recipe is tried."""
EXPECTED: Final = (StorageError, ExchangeError, SwarmError, OSError, trio.TooSlowError)

_log = structlog.get_logger("swarm.duties")


@dataclass(slots=True)
class _Task:
    """One piece on its way.

    Attributes:
        coming: Bytes of it for which the store had no room.
        scope: Cancels it.
    """

    coming: int = 0
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)


class Duties:
    """Keeps what this account has a seat for.

    Args:
        key: Its public key.
        view: The newest finalized state.
        heights: Tells when that changes.
        store: Where pieces are held.
        exchange: Fetches them.
        transport: Where they are announced.
        limiter: Threads for the store.
    """

    def __init__(
        self,
        key: bytes,
        view: Callable[[], LedgerView],
        heights: Heights,
        store: Blockstore,
        exchange: ExchangeService,
        transport: Transport,
        limiter: trio.CapacityLimiter,
    ) -> None:
        self._key = key
        self._view = view
        self._heights = heights
        self._store = store
        self._exchange = exchange
        self._transport = transport
        self._limiter = limiter
        self._turns = trio.CapacityLimiter(MAX_FETCHES)
        self._later_turns = trio.CapacityLimiter(MAX_FETCHES)
        self._tasks: dict[str, _Task] = {}
        self._checked = 0
        self._told: set[str] = set()
        self.patience = PIECE_PATIENCE
        self.here: set[str] = set()
        """Labels of the duties whose piece is here, as far as the last look told."""
        self._whole: set[str] = set()
        self.problems: dict[str, str] = {}
        """Why a piece is not here, by label."""
        self._cold: dict[str, Cid] = {}
        self.has_let_go = True
        """Whether a piece was let go of since the slots were last looked through for what nothing keeps."""

    def take_cold(self) -> Cid | None:
        """The next coded piece that is here and may not lie in slots yet; any thread may ask, one at a time."""
        try:
            return self._cold.popitem()[1]
        except KeyError:
            return None

    def was_whole(self, duty: Duty) -> bool:
        """Whether all of a duty's piece was here once while this node ran; any thread may ask."""
        return core.label(duty) in self._whole

    @property
    def coming(self) -> int:
        """Bytes of pieces for which the store had no room, beside what it has promised to chunks on their way.

        So a piece counts once its nodes have told how large it is, and no slot gives way to one that nobody has.
        """
        return sum(one.coming for one in self._tasks.values())

    async def run(self) -> None:
        """Keep what the ledger says, until cancelled."""
        height = -1
        async with trio.open_nursery() as nursery:
            while True:
                height = await self._heights.above(height)
                duties = self._view().duties_of(self._key)
                await self._let_go(duties)
                self._look_again()
                for duty in duties:
                    label = core.label(duty)
                    if label not in self._tasks and label not in self.here:
                        self._tasks[label] = _Task()
                        nursery.start_soon(self._keep, duty, self._tasks[label])

    async def _let_go(self, duties: list[Duty]) -> None:
        standing = {core.label(one) for one in duties}
        for label in self._tasks.keys() - standing:
            self._tasks[label].scope.cancel()
        self.here &= standing
        self._told &= standing
        self._whole &= standing
        self.problems = {name: why for name, why in self.problems.items() if name in standing}
        self._cold = {label: root for label, root in list(self._cold.items()) if label in standing}
        holds = await trio.to_thread.run_sync(self._store.holds, limiter=self._limiter)
        for root, label in core.stale_holds(holds, duties):
            await trio.to_thread.run_sync(self._store.release, root, label, limiter=self._limiter)
            self.has_let_go = True
            _log.info("duty.released", root=cids.text(cids.from_bytes(root)))

    def _look_again(self) -> None:
        """Once an audit every piece is walked: what a disk has lost since is fetched again."""
        audit = self._view().audit()
        if audit is not None and audit.number > self._checked:
            self._checked = audit.number
            self.here.clear()
            self.has_let_go = True

    async def _keep(self, duty: Duty, task: _Task) -> None:
        label, turns = core.label(duty), self._turns
        try:
            with task.scope:
                while not await self._try(duty, label, task, turns):
                    turns = self._later_turns
                    await trio.sleep(AGAIN_SECONDS)
        finally:
            del self._tasks[label]

    async def _try(self, duty: Duty, label: str, task: _Task, turns: trio.CapacityLimiter) -> bool:
        deal = self._view().deal(duty.deal)
        if deal is None:
            return False
        here = 0

        def told(done: int, total: int, _note: str = "", /) -> None:
            nonlocal here
            here = done
            task.coming = min(task.coming, max(0, duty.size - total))

        try:
            async with turns:
                await self._hold(duty.root, label)
                recipe = await self._recipe(deal, label) if deal.recipe else None
                try:
                    await self._exchange.fetch(
                        duty.root,
                        self._holders(deal, duty.root),
                        told,
                        label=label,
                        max_bytes=duty.size,
                        patience=PATIENCE_SECONDS if recipe is None else self.patience,
                    )
                except ExchangeError:
                    if recipe is None:
                        raise
                    await self._rebuild(duty, deal, recipe)
            self._whole.add(label)
            await self._transport.provide(duty.root)
        except EXPECTED as error:
            task.coming = max(0, duty.size - here) if isinstance(error, QuotaError) else 0
            self.problems[label] = f"a piece of {duty.size:,} bytes is not here yet: {error}"
            _log.warning("duty.not_here", root=cids.text(duty.root), error=str(error))
            return False
        self.problems.pop(label, None)
        self.here.add(label)
        if deal.recipe:
            self._cold[label] = duty.root
        if label not in self._told:
            self._told.add(label)
            _log.info("duty.kept", root=cids.text(duty.root), bytes=duty.size)
        return True

    async def _hold(self, root: Cid, label: str) -> None:
        await trio.to_thread.run_sync(self._store.hold, root, label, limiter=self._limiter)

    def _holders(self, deal: Deal, root: Cid) -> list[PeerId] | None:
        keys = [*self._view().keepers_of(root), deal.owner]
        found = [signing.peer_id(key) for key in dict.fromkeys(keys) if key != self._key]
        return found or None

    async def _recipe(self, deal: Deal, label: str) -> Recipe | None:
        """The deal's recipe, held beside the piece; None where nobody has it now."""
        try:
            await self._exchange.fetch(
                deal.recipe,
                self._everybody(deal),
                max_bytes=MAX_RECIPE_BYTES,
                patience=self.patience,
            )
            await self._hold(deal.recipe, label)
            data = await trio.to_thread.run_sync(
                self._store.get, deal.recipe, limiter=self._limiter
            )
            return Recipe.decode(data)
        except EXPECTED as error:
            _log.warning("duty.no_recipe", recipe=cids.text(deal.recipe), error=str(error))
            return None

    def _everybody(self, deal: Deal) -> list[PeerId] | None:
        seats = self._view().seats(deal.id)
        keys = [one.keeper for piece in seats.of for one in piece] if seats is not None else []
        found = [signing.peer_id(key) for key in dict.fromkeys([deal.owner, *keys])]
        return [peer for peer in found if peer != signing.peer_id(self._key)] or None

    async def _rebuild(self, duty: Duty, deal: Deal, recipe: Recipe) -> None:
        """Make a piece that nobody has from any k others, which are as large; those go again with the lease.

        Raises:
            StorageError, ExchangeError: Too few of them can be had, or they are not of one whole.
        """
        kept = {piece.root for piece in deal.pieces}
        if duty.root not in recipe.pieces or not kept.issuperset(recipe.pieces):
            message = f"the recipe does not tell of {cids.text(duty.root)}, or of pieces of others"
            raise StorageError(message)
        if recipe.size > recipe.k * duty.size:
            message = (
                f"the recipe makes {recipe.size:,} bytes of {recipe.k} pieces of {duty.size:,}"
            )
            raise StorageError(message)
        with self._store.lease(f"rebuild {duty.deal.hex()} {duty.piece}"):
            got = 0
            for root in recipe.pieces:
                if root == duty.root or got == recipe.k:
                    continue
                try:
                    await self._exchange.fetch(
                        root,
                        self._holders(deal, root),
                        max_bytes=duty.size,
                        patience=self.patience,
                    )
                    got += 1
                except EXPECTED as error:
                    _log.info("duty.piece_not_found", root=cids.text(root), error=str(error))
            index = recipe.pieces.index(duty.root)
            await trio.to_thread.run_sync(
                rebuild_piece, recipe, index, self._store, limiter=self._limiter
            )
        _log.info("duty.rebuilt", root=cids.text(duty.root), pieces=got)
