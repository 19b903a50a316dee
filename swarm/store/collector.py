"""The node's collector: takes what nothing keeps any more, when it is worth it, and never in anybody's way.

It ends the holds that `retention` says are over, and looks at how full the store is; `due` says whether to collect.
A collection runs in a thread of its own that rests after each step of some milliseconds, notices within one step that the node
stops, and loses nothing when it is stopped: the next one begins anew.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio

from storage import cid as cids
from storage.collection import DEAD_SHARE, Collected, Collector, Step
from storage.errors import CollectionRunningError, StorageError
from swarm.datasets import Progress as Counter
from swarm.datasets import told
from swarm.store import retention
from swarm.store.retention import Retention

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from storage.blockstore import SegmentBlockstore
    from storage.cid import Cid
    from storage.quota import Usage
    from swarm.control.api import Progress
    from swarm.ledger.state import LedgerView

_log = structlog.get_logger("swarm.store")

NOTHING = 2.0
"""A share of a segment that is never dead: a collection with it counts, and moves nothing."""
MEASURE_SECONDS = 5.0
"""For counting what could be given back, while a person waits."""
QUICK_SECONDS = 1.0
"""Counting that takes less is done for everybody who looks;"""
COUNT_PART = 10
"""what takes longer is given at most one part of the time in so many."""


@dataclass(frozen=True, slots=True)
class CollectorSettings:
    """When the node collects by itself; shares are 0 to 1.

    Attributes:
        first_seconds: Not before the node is this old.
        look_seconds: Between two looks at the store.
        every_seconds: So often, whatever happened.
        after_release_seconds: So long after the last collection, if something was let go since.
        tight_seconds: So long after the last one, if room is scarce or much is reclaimable.
        tight_share: Room is scarce if less than this part of what is lent is free.
        much_share: Much is reclaimable if it is more than this part of what is used.
        much_dead_share: How much of a segment must be dead then.
        least_dead_share: How much at least, however little is free.
        rest_seconds: After each step.
    """

    first_seconds: float = 600.0
    look_seconds: float = 60.0
    every_seconds: float = 12 * 3600.0
    after_release_seconds: float = 3600.0
    tight_seconds: float = 900.0
    tight_share: float = 0.1
    much_share: float = 0.2
    much_dead_share: float = 0.25
    least_dead_share: float = 0.05
    rest_seconds: float = 0.01


@dataclass(slots=True)
class Past:
    """What happened until now; times are seconds of any clock that does not go back.

    Attributes:
        started: When the node did.
        collected: When the last collection ended; None before the first.
        dead_share: With which it ran.
        has_released: Whether something was let go since.
    """

    started: float
    collected: float | None = None
    dead_share: float = DEAD_SHARE
    has_released: bool = False


def due(now: float, past: Past, usage: Usage, settings: CollectorSettings) -> float | None:
    """How much of a segment must be dead for a collection that is due now; None if none is.

    The less is free, the less of a segment need be dead: room is then worth more copying.
    """
    if now - past.started < settings.first_seconds:
        return None
    share, is_tight = DEAD_SHARE, False
    if usage.reclaimable > settings.much_share * usage.used:
        share, is_tight = settings.much_dead_share, True
    scarce = settings.tight_share * usage.limit
    if usage.free < scarce:
        fitting = max(settings.least_dead_share, DEAD_SHARE * usage.free / scarce)
        share, is_tight = min(share, fitting), True
    if past.collected is None:
        return share
    since = now - past.collected
    # Again with the same share gives nothing, unless something was let go.
    is_worth_it = past.has_released or share < past.dead_share
    if (
        since >= settings.every_seconds
        or (is_tight and is_worth_it and since >= settings.tight_seconds)
        or (past.has_released and since >= settings.after_release_seconds)
    ):
        return share
    return None


class _Steps(Counter):
    """The steps of a collection, as a thread takes them and a task tells them."""

    phase = "look"

    def take(self, step: Step) -> None:
        """Note it."""
        self.phase = step.phase
        self(step.done, step.total)


class StoreCollector:
    """Collects in the store of one node, one collection at a time.

    Attributes:
        problems: What keeps it from collecting, in sentences.

    Args:
        store: Where.
        view: The newest finalized state, which says what need not be kept any more.
        keep: How much is kept for tasks.
        settings: When it runs by itself.
    """

    def __init__(
        self,
        store: SegmentBlockstore,
        view: Callable[[], LedgerView],
        keep: Retention | None = None,
        settings: CollectorSettings | None = None,
    ) -> None:
        self._store = store
        self._view = view
        self._keep = keep or Retention()
        self._settings = settings or CollectorSettings()
        self.problems: list[str] = []
        self._past = Past(0.0)
        self._counted: object = None
        self._count_after = float("-inf")
        self._turn = trio.Lock()
        self._thread = trio.CapacityLimiter(1)
        self._own: trio.CancelScope | None = None

    async def run(self) -> None:
        """Let go of what has ended and collect when it is due; runs until cancelled."""
        self._past.started = trio.current_time()
        while True:
            await trio.sleep(self._settings.look_seconds)
            try:
                await self.release()
                usage = await trio.to_thread.run_sync(self._store.usage)
                share = due(trio.current_time(), self._past, usage, self._settings)
                if share is not None:
                    await self._collect_gently(share)
            except StorageError as error:
                _log.warning("collection.failed", error=str(error))

    async def release(self) -> int:
        """End the holds that the ledger says are over; how many there were."""
        ended = await trio.to_thread.run_sync(self._release)
        if ended:
            _log.info("holds.released", count=ended)
            self.released()
        return ended

    def released(self) -> None:
        """Something was let go: a collection may find it."""
        self._past.has_released = True

    async def collect(
        self, progress: Progress | None = None, dead_share: float = DEAD_SHARE
    ) -> Collected:
        """Collect now, without rests; one that the node runs by itself makes way.

        Args:
            progress: Told (phase, done, total).
            dead_share: How much of a segment must be dead before it is copied.

        Raises:
            StorageError: The disk failed.
        """
        if self._own is not None:
            self._own.cancel()
        async with self._turn:
            return await self._collect(dead_share, 0.0, progress)

    async def reclaim(self) -> int:
        """Collect for somebody who lacks room, if something was let go since the last time; the bytes that this gave back."""
        if not self._past.has_released:
            return 0
        try:
            done = await self.collect(None, self._settings.least_dead_share)
        except StorageError as error:
            _log.warning("collection.failed", error=str(error))
            return 0
        return done.freed

    async def recount(self) -> None:
        """Count what is pinned, held and dead, if that has changed since it was counted and takes only a moment."""
        began = trio.current_time()
        kept = await trio.to_thread.run_sync(self._kept)
        if kept == self._counted or began < self._count_after:
            return
        await self.reclaimable()
        self._counted = kept
        ended = trio.current_time()
        if ended - began > QUICK_SECONDS:
            self._count_after = ended + COUNT_PART * (ended - began)

    def _kept(self) -> object:
        usage = self._store.usage()
        return usage.used, usage.in_place, self._store.pins(), self._store.holds()

    async def reclaimable(self) -> int:
        """Bytes that a collection could give back, counted now if that takes only a moment."""
        if not self._turn.locked():
            with trio.move_on_after(MEASURE_SECONDS):
                async with self._turn:
                    with suppress(CollectionRunningError):
                        await self._run(NOTHING, 0.0, None)
        return (await trio.to_thread.run_sync(self._store.usage)).reclaimable

    async def _collect_gently(self, dead_share: float) -> None:
        async with self._turn:
            with trio.CancelScope() as self._own:
                try:
                    done = await self._collect(dead_share, self._settings.rest_seconds, None)
                finally:
                    self._own = None
                _log.info(
                    "collection.done",
                    freed=done.freed,
                    dropped=done.dropped,
                    unreadable=len(done.unreadable),
                    dead_share=round(dead_share, 2),
                )

    async def _collect(
        self, dead_share: float, rest: float, progress: Progress | None
    ) -> Collected:
        self._past.has_released = False
        try:
            collected = await self._run(dead_share, rest, progress)
        except BaseException:
            self._past.has_released = True
            raise
        self.problems = [_unreadable(collected.unreadable)] if collected.unreadable else []
        self._past.collected = trio.current_time()
        self._past.dead_share = dead_share
        return collected

    async def _run(self, dead_share: float, rest: float, progress: Progress | None) -> Collected:
        """Collect in a thread, which notices within a step that it is cancelled."""
        steps = _Steps()

        def pause() -> None:
            trio.from_thread.check_cancelled()
            if rest:
                trio.from_thread.run(trio.sleep, rest)

        def tell(done: int, total: int) -> None:
            if progress is not None:
                progress(steps.phase, done, total)

        collector = Collector(self._store, dead_share=dead_share)
        work = partial(collector.run_once, steps.take, pause)
        return await told(steps, None if progress is None else tell, work, self._thread)

    def _release(self) -> int:
        holds = self._store.holds()
        ended = retention.released(holds, retention.facts_of(self._view(), holds), self._keep)
        for root, label in ended:
            self._store.release(root, label)
        return len(ended)


def _unreadable(nodes: Sequence[Cid]) -> str:
    return (
        f"{len(nodes):,} manifests that are kept cannot be read, {cids.text(nodes[0])} first; what they name is not known,"
        " so nothing gives its room back: `swarm verify --repair` fetches them again"
    )
