"""Waiting for room: who wants to write more than is free waits until slots have given way, or is told that they cannot.

First what was let go since the last collection is collected: pieces that moved into slots leave dead bytes behind, which may
be all that is lacking.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from protocols.bitswap.service import PATIENCE_SECONDS as BITSWAP_PATIENCE_SECONDS
from protocols.bitswap.service import BitswapService
from protocols.exchange.service import PATIENCE_SECONDS, ExchangeService
from storage.errors import DiskFullError, QuotaError
from storage.slots import SLOT_COST

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from protocols.bitswap.fetching import Fetched as FetchedByBitswap
    from protocols.exchange.fetching import Fetched
    from protocols.progress import Tell
    from protocols.transport import PeerId
    from storage.blockstore import SegmentBlockstore
    from storage.cid import Cid
    from storage.slots import SlotStore
    from swarm.keeper.space import LentSpace

_T = TypeVar("_T")

ROOM_SECONDS: Final = 600.0
"""For which room is waited: longer than an audit with the blocks before it in which nothing is committed."""
SHORT_SECONDS: Final = 60.0
"""For which slots give way to somebody who was refused and may ask again."""


class MakingRoom:
    """Who waits for how much; the keeper's looks do the rest (`swarm.keeper.service`).

    Args:
        space: What is lent, and how much of it is taken.
        store: Where the room is wanted.
        slots: What gives way.
        why: What is waited for, in words.
        limiter: Threads.
        reclaim: Collects what was let go; the bytes that are free again. 0 where nothing was.

    Attributes:
        asked: Set when somebody has begun to wait since the last look.
        wanted: Bytes that are waited for, or that somebody was refused a while ago and could have.
    """

    def __init__(
        self,
        space: LentSpace,
        store: SegmentBlockstore,
        slots: SlotStore,
        why: Callable[[], str],
        limiter: trio.CapacityLimiter,
        reclaim: Callable[[], Awaitable[int]] | None = None,
    ) -> None:
        self._reclaim = reclaim or _nothing
        self._space = space
        self._store = store
        self._slots = slots
        self._why = why
        self._limiter = limiter
        self._waiting: dict[object, int] = {}
        self._short = 0
        self._short_until = 0.0
        self._looked = trio.Event()
        self.asked = trio.Event()
        self.wanted = 0

    def look(self) -> None:
        """See how much is wanted now."""
        self.asked = trio.Event()
        short, now = self._space.take_short(), trio.current_time()
        if short and short <= self.most():
            self._short, self._short_until = short, now + SHORT_SECONDS
        elif now >= self._short_until or self._space.free >= self._short:
            self._short = 0  # it was given up, or is there
        self.wanted = max(sum(self._waiting.values()), self._short)

    def looked(self) -> None:
        """Slots have given way as far as they could with this look: who waits may try again."""
        looked, self._looked = self._looked, trio.Event()
        looked.set()

    def most(self) -> int:
        """Bytes that could be written if every slot without a chunk gave way."""
        kept = min(self._slots.top, len(self._slots)) + self._slots.waiting
        return self._space.free + self._space.slots - kept * SLOT_COST

    async def wait(self, needed: int, say: Callable[[str], None] = lambda _: None) -> None:
        """Wait until so many bytes are free.

        Args:
            needed: Bytes; 0 waits until no more is taken than is lent.
            say: Told what is waited for.

        Raises:
            QuotaError: They will not be free, or were not within `ROOM_SECONDS`.
        """
        ticket, is_collected = object(), False
        with trio.move_on_after(ROOM_SECONDS):
            try:
                while True:
                    free, most = await trio.to_thread.run_sync(self._seen, limiter=self._limiter)
                    if free >= needed:
                        self._short = 0  # this was what had been refused, most likely
                        return
                    if not is_collected:
                        is_collected = True
                        if await self._reclaim():
                            continue
                    if needed > most:
                        raise QuotaError(needed, max(0, most))
                    self._waiting[ticket] = needed
                    self.asked.set()
                    say(self._why())
                    await self._looked.wait()
            finally:
                self._waiting.pop(ticket, None)
        raise QuotaError(needed, max(0, self._space.free))

    def _seen(self) -> tuple[int, int]:
        usage = self._store.usage()
        free = self._space.free
        return (min(free, usage.free) if free > 0 else free), self.most()

    async def patiently(
        self,
        work: Callable[[], Awaitable[_T]],
        say: Callable[[str], None] = lambda _: None,
        left: Callable[[], int] = lambda: 0,
    ) -> _T:
        """Do what needs room, again from where it was, once there is as much as it lacked.

        Args:
            work: May raise QuotaError, and begins again where it stopped.
            say: Told what is waited for.
            left: Asked how many bytes it has still to write, as far as it knows.

        Raises:
            QuotaError: There will not be enough.
        """
        asked = 0
        while True:
            try:
                return await work()
            except DiskFullError:
                raise
            except QuotaError as error:
                # More than last time in any case: what is lacking may only be a part of what is to come.
                asked = max(error.needed, left(), 2 * asked)
            await self.wait(asked, say)

    async def fetching(
        self,
        fetch: Callable[[Tell], Awaitable[_T]],
        progress: Tell | None,
    ) -> _T:
        """Fetch patiently.

        Args:
            fetch: Given what to tell (bytes here, bytes in total, a note); does not fetch again what is here.
            progress: Told the same, and what is waited for.

        Raises:
            QuotaError: There will not be enough.
        """
        seen = (0, 0)

        def told(done: int, total: int, note: str = "", /) -> None:
            nonlocal seen
            seen = (done, total)
            if progress is not None:
                progress(done, total, note)

        return await self.patiently(
            lambda: fetch(told), lambda why: told(*seen, why), lambda: seen[1] - seen[0]
        )


async def _nothing() -> int:
    return 0


class PatientExchange(ExchangeService):
    """An exchange whose fetches wait for room, once it is told who makes it.

    Attributes:
        making_room: None refuses at once.
    """

    making_room: MakingRoom | None = None

    async def fetch(
        self,
        root: Cid,
        providers: Sequence[PeerId] | None = None,
        progress: Tell | None = None,
        *,
        label: str = "",
        max_bytes: int | None = None,
        patience: float = PATIENCE_SECONDS,
        alone: bool = False,
    ) -> Fetched:
        """As `ExchangeService.fetch`; raises QuotaError where no slot can give way."""
        fetch = partial(
            super().fetch,
            root,
            providers,
            label=label,
            max_bytes=max_bytes,
            patience=patience,
            alone=alone,
        )
        if self.making_room is None:
            return await fetch(progress)
        return await self.making_room.fetching(fetch, progress)


class PatientBitswap(BitswapService):
    """Likewise, of the nodes of IPFS.

    Attributes:
        making_room: None refuses at once.
    """

    making_room: MakingRoom | None = None

    async def fetch(
        self,
        root: Cid,
        providers: Sequence[PeerId] | None = None,
        progress: Tell | None = None,
        *,
        label: str = "",
        max_bytes: int | None = None,
        patience: float = BITSWAP_PATIENCE_SECONDS,
    ) -> FetchedByBitswap:
        """As `BitswapService.fetch`; raises QuotaError where no slot can give way."""
        fetch = partial(
            super().fetch, root, providers, label=label, max_bytes=max_bytes, patience=patience
        )
        if self.making_room is None:
            return await fetch(progress)
        return await self.making_room.fetching(fetch, progress)
