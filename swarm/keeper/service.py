"""The shell of a keeper: seals in the background, commits, answers audits, and tells how it does."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import structlog
import trio

from storage.errors import DiskFullError, QuotaError, StorageError
from storage.files import DISK
from storage.quota import default_keep_free
from storage.sealer import Pace, Sealer
from swarm.care.controls import SEAL, Controls
from swarm.errors import SwarmError
from swarm.keeper import core
from swarm.keeper.answering import Answering
from swarm.keeper.cellar import Cellar
from swarm.keeper.committing import Committing
from swarm.keeper.making_room import MakingRoom
from swarm.keeper.prover import SlotProver
from swarm.keeper.room import SLOT_COST, Room
from swarm.ledger.errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from protocols.transport import Transport
    from storage.blockstore import SegmentBlockstore
    from storage.slot_contents import SlotContents
    from storage.slots import SlotStore
    from swarm.heights import Heights
    from swarm.keeper.duties import Duties
    from swarm.keeper.memory import Memory
    from swarm.keeper.space import LentSpace
    from swarm.ledger.application import Included
    from swarm.ledger.keeping import Keeper
    from swarm.ledger.state import LedgerView
    from swarm.wallet import Wallet

LOOK_SECONDS: Final = 1.0
"""Between two looks at the room where no block comes."""
GOAL_STEP: Final = 16
"""Slots by which a goal grows at least: a changed goal wakes the sealer from its rest."""
THREADS: Final = 2
PACE_LOOKS: Final = 120
"""From which the time that is left is told."""

_log = structlog.get_logger("swarm.keeper")
_EXPECTED: Final = (StorageError, SwarmError, LedgerError, OSError)


class Keeping:
    """What one node lends.

    Args:
        key: Its account's public key.
        view: The newest finalized state.
        included: What became of a transaction.
        heights: Tells of finalized blocks.
        wallet: Sends what it says.
        store: Its chunks.
        space: What is lent, and how much of it is taken.
        slots: Its sealed slots.
        contents: What lies in them.
        duties: The pieces that it keeps.
        transport: Where auditors ask.
        folder: Where it remembers.
        share: Of one core, for sealing; 0 seals nothing.
        controls: What a person holds back; None: nothing.
        released: Called when the store has let go of chunks.
        reclaim: Collects what was let go; the bytes that are free again.
    """

    def __init__(
        self,
        *,
        key: bytes,
        view: Callable[[], LedgerView],
        included: Callable[[bytes], Included | None],
        heights: Heights,
        wallet: Wallet,
        store: SegmentBlockstore,
        space: LentSpace,
        slots: SlotStore,
        contents: SlotContents,
        duties: Duties,
        transport: Transport,
        folder: Path,
        share: float,
        controls: Controls | None = None,
        released: Callable[[], None] = lambda: None,
        reclaim: Callable[[], Awaitable[int]] | None = None,
    ) -> None:
        self._key = key
        self._view = view
        self._heights = heights
        self._store = store
        self._space = space
        self._folder = folder
        self._limiter = trio.CapacityLimiter(THREADS)
        self._changed = trio.Event()
        self._failure: str = ""
        self._pace: deque[tuple[float, int]] = deque(maxlen=PACE_LOOKS)
        self.slots = slots
        self.duties = duties
        self.share = share
        self._controls = controls or Controls()
        self._was_held = False
        self.prover = SlotProver(key, slots, store, duties.was_whole)
        self.sealer = Sealer(slots, Pace(share or 1.0), self._failed)
        self.making_room = MakingRoom(space, store, slots, self._why_waits, self._limiter, reclaim)
        self.room = self._measure()
        self.cellar = Cellar(
            slots,
            contents,
            duties,
            pace=lambda: self.sealer.pace if self._may_seal else None,
            batch=lambda: self.room.batch,
            stay=lambda: self.room.stay,
            released=released,
        )
        self._committing = Committing(key, slots, wallet, included, self._lower, self._limiter)
        self._answering = Answering(key, self.prover, wallet, transport, folder, self._limiter)
        self.problems: dict[str, str] = {}

    @property
    def is_lending(self) -> bool:
        """Whether there are sealed slots, or are to be."""
        return bool(self.share or len(self.slots))

    @property
    def memory(self) -> Memory:
        """What audits made of it."""
        return self._answering.memory

    @property
    def goal(self) -> int:
        """Slots that are wanted: those that are sealed, where nothing more is sealed."""
        return self.room.goal if self._may_seal else min(self.room.goal, len(self.slots))

    @property
    def _may_seal(self) -> bool:
        return bool(self.share) and not self._controls.holds(SEAL)

    @property
    def lent(self) -> int:
        """Bytes that the person lends."""
        return self._space.lent

    def lend(self, lent: int) -> None:
        """Lend another number of bytes from now on."""
        self._space.lend(lent)
        self.room = replace(self.room, lent=lent)
        self._changed.set()

    async def run(self) -> None:
        """Seal, commit and answer until cancelled; the ledger is that of now when this begins."""
        self.sealer = Sealer(self.slots, Pace(self.share or 1.0), self._failed)
        self.sealer.start()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.duties.run)
                nursery.start_soon(self.cellar.run)
                await self._watch()
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self.sealer.stop)

    async def _watch(self) -> None:
        while True:
            height = self._heights.height
            await self._try("keeper", self._look(height))
            with trio.move_on_after(LOOK_SECONDS):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._wake, nursery.cancel_scope)
                    await self._heights.above(height)
                    nursery.cancel_scope.cancel()

    async def _wake(self, scope: trio.CancelScope) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_until, self._changed, nursery.cancel_scope)
            nursery.start_soon(_until, self.making_room.asked, nursery.cancel_scope)
        scope.cancel()

    async def _try(self, name: str, work: Awaitable[None]) -> None:
        """What fails is told, once, and tried again with the next look; the rest goes on."""
        try:
            await work
        except _EXPECTED as error:
            why = f"{name}: {error}"
            if self.problems.get(name) != why:
                _log.warning("keeper.failed", what=name, error=str(error))
            self.problems[name] = why
        else:
            self.problems.pop(name, None)

    async def _look(self, height: int) -> None:
        self._changed = trio.Event()
        with suppress(QuotaError):  # unpacked files that have no room wait for it themselves
            self._space.look()
        self.making_room.look()
        self.room = await trio.to_thread.run_sync(self._measure, limiter=self._limiter)
        self._aim(self.room)
        view = self._view()
        keeper, audit = view.keeper(self._key), view.audit()
        self._answering.look(view, keeper, audit)
        if audit is not None and self._answering.owes(keeper, audit):
            await self._try("audit", self._answering.answer(audit.number))
        await self._try("lending", self._commit(height, view, keeper))
        self.making_room.looked()

    async def _commit(self, height: int, view: LedgerView, keeper: Keeper | None) -> None:
        step = await self._committing.look(
            height,
            view,
            keeper,
            self.room,
            self.goal,
            is_ripe=self.cellar.is_ripe,
            is_held=self._controls.is_leaving,
        )
        if isinstance(step, core.Shrink):
            self.room = await trio.to_thread.run_sync(self._measure, limiter=self._limiter)
        if step is not None and not isinstance(step, core.Commit):
            self._changed.set()

    def _lower(self, slots: int) -> None:
        self.sealer.goal = min(self.sealer.goal, slots)

    def _measure(self) -> Room:
        disk, free = DISK.space(self._folder)
        usage = self._store.usage()
        return Room(
            self.lent,
            usage.used + usage.reserved,
            self._space.shelf,
            self.duties.coming + self.making_room.wanted,
            len(self.slots),
            free,
            default_keep_free(disk),
            self.slots.waiting,
        )

    def _why_waits(self) -> str:
        view = self._view()
        if core.is_open(view.params, view.height):
            return "slots give way"
        return f"slots give way from height {core.opens_at(view.params, view.height):,}"

    def _aim(self, room: Room) -> None:
        """Tell the sealer, lower at once and higher by steps."""
        goal = self.goal
        before, was_held = self.sealer.goal, self._was_held
        self._was_held = self._controls.holds(SEAL)
        is_moved = goal < before or goal >= before + GOAL_STEP or before < goal < GOAL_STEP
        if is_moved or was_held:
            self.sealer.goal = goal
        self._pace.append((trio.current_time(), room.slots))
        if room.slots >= self.sealer.goal:
            self._failure = ""

    def _failed(self, error: Exception) -> None:
        """Called in the sealer's thread."""
        if isinstance(error, QuotaError) and not isinstance(error, DiskFullError):
            return  # chunks were quicker; the next look at the room lowers the goal
        self._failure = f"sealing rests: {error}"

    # Reports

    @property
    def seconds_left(self) -> float | None:
        """Until everything is sealed at this pace; None where nothing is sealed or it is not known yet."""
        if len(self._pace) < 2 or not self.share:
            return None
        (began, first), (now, last) = self._pace[0], self._pace[-1]
        return (self.goal - last) * (now - began) / (last - first) if last > first else None

    def worries(self) -> list[str]:
        """What is wrong now, in sentences."""
        return [
            *([self._failure] if self._failure else []),
            *self.problems.values(),
            *self._committing.problems.values(),
            *list(self.duties.problems.values())[:2],
        ]

    @property
    def goal_bytes(self) -> int:
        """Bytes that the slots are to take."""
        return self.goal * SLOT_COST

    @property
    def sealed_bytes(self) -> int:
        """Bytes that the slots take."""
        return len(self.slots) * SLOT_COST


async def _until(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
