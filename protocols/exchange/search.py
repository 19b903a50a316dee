"""The search of one fetch: finds providers, and keeps a session with each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from protocols.transport import StreamError, UnreachableError
from storage import cid as cids
from storage.sizes import counted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from protocols.exchange.core import Schedule
    from protocols.exchange.sessions import Session, Sink
    from protocols.transport import PeerId, Transport
    from storage.blockstore import Blockstore
    from storage.cid import Cid

LOOKUP_SECONDS = 10.0
"""For one search of provider records."""
QUERY_SECONDS = 5.0
"""For a connected peer to say whether it has a chunk."""
MAX_ASKED_PEERS = 32
"""Connected peers asked in one search."""
MAX_TRIES = 3
"""Streams opened to a provider that delivers nothing."""
RELAYED_PATIENCE_SECONDS = 3.0
"""Without a chunk for this long a fetch turns to providers behind relays too, though it has others."""
RELAYED_LOOK_SECONDS = 0.25
"""Between two looks whether it is their turn."""
FIRST_PAUSE_SECONDS = 1.0
LAST_PAUSE_SECONDS = 4.0
"""Between two searches."""
_RECORDS = "dht"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a fetch needs of its service.

    Attributes:
        transport: Where providers are looked for.
        store: Where chunks go.
        limiter: The room's threads.
        session: Gives the session with a peer.
        share: Bytes that this fetch may have in flight or unwritten.
        is_liar: Whether a peer has sent wrong bytes before.
        on_liar: Told (peer, reason).
    """

    transport: Transport
    store: Blockstore
    limiter: trio.CapacityLimiter
    session: Callable[[PeerId], Awaitable[Session]]
    share: Callable[[], int]
    is_liar: Callable[[PeerId], bool]
    on_liar: Callable[[PeerId, str], None]


class Search:
    """Whom one fetch can ask.

    Args:
        around: The service.
        root: What is fetched.
        given: Whom to ask first; None looks for them.
        schedule: Told who can be asked.
        sink: Told what comes from them.
        came: Bytes of each provider that were stored.
        on_change: Called when there may be something new to hand out.

    Attributes:
        sessions: Those that can be asked.
        told: What was asked of whom, and what came of it, a line each.
        dialling: Providers that are being connected to.
        unreachable: Providers that could not be, when that was last tried.
        has_looked: Whether a search came to its end.
    """

    def __init__(
        self,
        around: Surroundings,
        root: Cid,
        given: Sequence[PeerId] | None,
        schedule: Schedule,
        sink: Sink,
        came: Mapping[PeerId, int],
        on_change: Callable[[], None],
    ) -> None:
        self.sessions: dict[PeerId, Session] = {}
        self.told: dict[str, str] = {}
        self.dialling = 0
        self.unreachable: set[PeerId] = set()
        self.has_looked = False
        self._around = around
        self._root = root
        self._given = given
        self._schedule = schedule
        self._sink = sink
        self._came = came
        self._on_change = on_change
        self._again: float | None = None
        self._talking: set[PeerId] = set()
        self._starving = trio.Event()
        self._nursery: trio.Nursery | None = None

    @property
    def answers(self) -> int:
        """Peers of whom anything is known."""
        return len(self.told) - (_RECORDS in self.told)

    @property
    def liars(self) -> int:
        """Peers that are not asked, since they sent wrong bytes in this fetch or before."""
        return sum(map(self._around.is_liar, self.told))

    def again(self, now: float) -> float | None:
        """Seconds until the next search; None while one runs, or may begin."""
        return None if self._again is None else self._again - now

    def starve(self) -> None:
        """Chunks are wanted that can be asked of nobody."""
        if not self.dialling:
            self._starving.set()

    async def run(self) -> None:
        """Search, and keep the sessions. Runs until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for peer in self._given or ():
                self._consult(peer)
            if self._given is None:
                await self._look()
            pause = FIRST_PAUSE_SECONDS
            while True:
                self._starving = trio.Event()
                self._on_change()
                await self._starving.wait()
                self._schedule.forget_refusals()
                self._on_change()
                await self._look()
                self._again = trio.current_time() + pause
                await trio.sleep(pause)
                self._again = None
                pause = min(2 * pause, LAST_PAUSE_SECONDS)

    async def _look(self) -> None:
        """Ask for provider records, and connected peers for a chunk that is missing."""
        wanted = self._schedule.first_wanted() or self._root
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._look_up)
            others = [peer for peer in self._around.transport.peers() if peer not in self._talking]
            for peer in others[:MAX_ASKED_PEERS]:
                if not self._around.is_liar(peer):
                    nursery.start_soon(self._query, peer, wanted)
        self.has_looked = True

    async def _look_up(self) -> None:
        found: list[PeerId] = []
        with trio.move_on_after(LOOKUP_SECONDS):
            found = await self._around.transport.find_providers(self._root)
        self.told[_RECORDS] = f"provider records name {counted(len(found), 'peer')}"
        for peer in found:
            self._consult(peer)

    async def _query(self, peer: PeerId, wanted: Cid) -> None:
        told = f"no answer within {QUERY_SECONDS:.0f} s"
        with trio.move_on_after(QUERY_SECONDS):
            try:
                session = await self._around.session(peer)
                if not session.can_query:
                    return
                if await session.query((wanted,)):
                    self._consult(peer)
                    return
                told = f"does not have {cids.text(wanted)}"
            except (UnreachableError, StreamError) as error:
                told = str(error)
        self.told[peer] = f"{peer}: {told}"

    def _consult(self, peer: PeerId) -> None:
        around = self._around
        if peer in self._talking or peer == around.transport.me or self._nursery is None:
            return
        if around.is_liar(peer):
            self.told[peer] = f"{peer}: not asked, it has sent wrong bytes before"
            return
        self._talking.add(peer)
        self._nursery.start_soon(self._talk, peer)

    def _stands_back(self, peer: PeerId) -> bool:
        """Whether a provider is behind a relay, while others that are not deliver, or may be about to.

        Whoever is behind a relay is slow, and takes of what the relay gives to all.
        """
        is_relayed = self._around.transport.is_relayed
        idle = trio.current_time() - self._schedule.last_progress
        return (
            idle < RELAYED_PATIENCE_SECONDS
            and is_relayed(peer)
            and not all(map(is_relayed, self._talking))
        )

    async def _join(self, peer: PeerId) -> None:
        """Have a session with a provider as soon as it is its turn.

        Raises:
            UnreachableError: It cannot be dialled, or does not exchange.
        """
        await trio.lowlevel.checkpoint()  # until all who were found together are known
        while True:
            while self._stands_back(peer):  # noqa: ASYNC110 - a clock is waited for
                await trio.sleep(RELAYED_LOOK_SECONDS)
            self.dialling += 1
            try:
                session = await self._around.session(peer)
            finally:
                self.dialling -= 1
                self._on_change()
            # The connection is there now, and may turn out to be relayed.
            if not self._stands_back(peer):
                break
        self.unreachable.discard(peer)
        self.sessions[peer] = session
        session.attach(self._sink)
        self._schedule.join(peer, trio.current_time())

    async def _talk(self, peer: PeerId) -> None:
        tries = 0
        while tries < MAX_TRIES and not self._around.is_liar(peer):
            before = self._came.get(peer, 0)
            try:
                await self._join(peer)
            except UnreachableError as error:
                self.unreachable.add(peer)
                self.told[peer] = str(error)
            if (joined := self.sessions.get(peer)) is not None:
                await joined.closed.wait()
                del self.sessions[peer]
            tries = 1 if self._came.get(peer, 0) > before else tries + 1
            await trio.sleep(FIRST_PAUSE_SECONDS * (tries - 1))
        self._talking.discard(peer)
        self._on_change()
