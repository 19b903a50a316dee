"""One fetch: asks as the schedule says, stores what comes, and walks the DAG."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from protocols.bitswap.errors import NotHeldError, StalledError
from protocols.bitswap.schedule import LOW_LEAVES, Ask, Drop, Inquire, Schedule, Withdraw
from protocols.bitswap.walk import Walk
from protocols.transport import UnreachableError
from storage import cid as cids
from storage import dag
from storage.errors import ChunkNotFoundError, CorruptChunkError
from storage.quota import topped_up

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from protocols.bitswap.lines import Way
    from protocols.bitswap.schedule import Effect
    from protocols.progress import Tell
    from protocols.transport import PeerId
    from storage.blockstore import Blockstore
    from storage.cid import Cid
    from storage.leases import Lease
    from storage.quota import Reservation

PATIENCE_SECONDS = 30.0
"""Without a chunk for this long a fetch ends with an error."""
REFUSED_SECONDS = 10.0
"""The same where every peer says that it does not have it."""
BATCH_BYTES = 8 * 2**20
"""Written at a time; one chunk more at most."""
BUFFER_BYTES = 32 * 2**20
"""In flight or not written yet, of one fetch."""
BATCH_MANIFESTS = 256
"""Manifests read back from the store at a time."""
TICK_SECONDS = 0.25
MAX_TRIES = 3
"""Ways opened to a peer that delivers nothing."""
PAUSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a fetch did.

    Attributes:
        root: What was fetched.
        bytes: That came from peers and were stored.
        chunks: How many came.
        seconds: How long it took.
        from_peers: Bytes from each peer.
    """

    root: Cid
    bytes: int
    chunks: int
    seconds: float
    from_peers: dict[PeerId, int]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a fetch needs of its service.

    Attributes:
        store: Where chunks go.
        limiter: The room's threads.
        connect: Opens the way to a peer, or raises `UnreachableError`.
        apply: Sends wants and cancels.
        stored: Told of chunks that were written.
    """

    store: Blockstore
    limiter: trio.CapacityLimiter
    connect: Callable[[PeerId], Awaitable[Way]]
    apply: Callable[[Fetching, Ask | Inquire | Withdraw], None]
    stored: Callable[[dict[Cid, int]], None]


class Fetching:
    """One fetch.

    Args:
        around: The service.
        root: What is fetched.
        peers: Whom to ask.
        progress: Told (bytes here, bytes in total) from the fetch's task.
        limit: Bytes that the caller accepts.
        patience: Seconds without a chunk until it is given up.
    """

    def __init__(
        self,
        around: Surroundings,
        root: Cid,
        peers: Sequence[PeerId],
        progress: Tell | None,
        limit: int | None,
        patience: float,
    ) -> None:
        self.root = root
        self.walk = Walk(root, limit)
        self.schedule = Schedule(trio.current_time())
        self._around = around
        self._candidates = tuple(dict.fromkeys(peers))
        self._progress = progress
        self._patience = patience
        self._inbox: deque[tuple[PeerId, Cid, bytes]] = deque()
        self._buffered = 0
        self._told: dict[PeerId, str] = {}
        self._refused: set[PeerId] = set()
        self._talking = len(self._candidates)
        self._from_peers: dict[PeerId, int] = {}
        self._chunks = 0
        self._reservation: Reservation | None = None
        self._lease: Lease | None = None
        self._changed = trio.Event()
        self._arrived = trio.Event()
        self._is_done = False
        self._failure: Exception | None = None

    async def run(self) -> Fetched:
        """Fetch until everything is here; raises what `BitswapService.fetch` tells."""
        started = trio.current_time()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._guard, self._absorb_all)
                for peer in self._candidates:
                    nursery.start_soon(self._talk, peer)
                await self._guard(self._drive)
                nursery.cancel_scope.cancel()
        finally:
            self._is_done = True
            self._apply(self.schedule.withdraw_all())
            if self._reservation is not None:
                self._reservation.release()
            if self._lease is not None:
                self._lease.close()
        if self._failure is not None:
            raise self._failure
        size = sum(self._from_peers.values())
        seconds = trio.current_time() - started
        return Fetched(self.root, size, self._chunks, seconds, dict(self._from_peers))

    # What the service tells.

    def heard(self, peer: PeerId) -> None:
        """Some byte came from a peer."""
        self.schedule.heard(peer, trio.current_time())

    def block(self, peer: PeerId, cid: Cid, data: bytes) -> None:
        """A chunk came whose hash is its name."""
        if self._is_done:
            return
        self._refused.discard(peer)
        is_needed, effects = self.schedule.received(peer, cid, len(data), trio.current_time())
        self._apply(effects)
        if is_needed:
            self._inbox.append((peer, cid, data))
            self._buffered += len(data)
            self._arrived.set()
        self._changed.set()

    def presence(self, peer: PeerId, cid: Cid, *, is_held: bool) -> None:
        """A peer says whether it has a chunk."""
        if is_held:
            self.schedule.has(peer, cid)
            self._refused.discard(peer)
        else:
            self.schedule.lacks(peer, cid)
            self._refused.add(peer)
            self._told[peer] = f"{peer} does not have {cids.text(cid)}"
        self._changed.set()

    # The tasks.

    async def _guard(self, part: Callable[[], Awaitable[None]]) -> None:
        try:
            await part()
        except Exception as error:  # noqa: BLE001 - raised again outside the nursery, so that it is no group
            self._failure = self._failure or error
        self._is_done = True
        self._changed.set()

    async def _drive(self) -> None:
        while not self._is_done:
            self._changed = trio.Event()
            now = trio.current_time()
            schedule = self.schedule
            if self._buffered:
                schedule.last_progress = now
            self._apply(schedule.tick(now, BUFFER_BYTES - self._buffered - schedule.in_flight))
            waited = now - schedule.last_progress
            wanted = schedule.first_wanted()
            is_refused = bool(self._refused) and self._refused.issuperset(schedule.peers)
            patience = min(self._patience, REFUSED_SECONDS) if is_refused else self._patience
            if wanted is not None and (waited > patience or not self._talking):
                told = tuple(self._told.values())
                if is_refused and not self._chunks:
                    raise NotHeldError(wanted, told, waited)
                raise StalledError(self.root, self.walk.done, told, waited)
            with trio.move_on_after(TICK_SECONDS):
                await self._changed.wait()

    def _apply(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Drop):
                self._told[effect.peer] = f"{effect.peer} is {effect.reason}"
            else:
                self._around.apply(self, effect)

    async def _talk(self, peer: PeerId) -> None:
        """Keep a peer joined as long as it can be reached and delivers."""
        tries = 0
        while tries < MAX_TRIES:
            before = self._from_peers.get(peer, 0)
            try:
                way = await self._around.connect(peer)
            except UnreachableError as error:
                self._told[peer] = str(error)
            else:
                self.schedule.join(peer, trio.current_time())
                self._changed.set()
                await way.over.wait()
                self._told[peer] = f"{peer}: {way.why}"
                self.schedule.leave(peer)
                self._changed.set()
            tries = 1 if self._from_peers.get(peer, 0) > before else tries + 1
            if tries < MAX_TRIES:
                await trio.sleep(PAUSE_SECONDS)
        self._talking -= 1
        self._changed.set()

    async def _absorb_all(self) -> None:
        """Store what comes, and learn from it what else is needed."""
        await self._absorb([], first=True)
        while not self.walk.is_complete:
            if not self._inbox and not (self.walk.has_here and self.schedule.queued < LOW_LEAVES):
                self._arrived = trio.Event()
                await self._arrived.wait()
            batch: list[tuple[PeerId, Cid, bytes]] = []
            size = 0
            while self._inbox and size < BATCH_BYTES:
                batch.append(self._inbox.popleft())
                size += len(batch[-1][2])
            await self._absorb(batch)

    async def _absorb(self, batch: list[tuple[PeerId, Cid, bytes]], *, first: bool = False) -> None:
        wanted = await trio.to_thread.run_sync(
            self._absorb_in_thread, batch, first, limiter=self._around.limiter
        )
        for peer, _, data in batch:
            self._buffered -= len(data)
            self._from_peers[peer] = self._from_peers.get(peer, 0) + len(data)
        self._chunks += len(batch)
        self._around.stored({cid: len(data) for _, cid, data in batch})
        for cid, size in wanted:
            self.schedule.add(cid, size)
        if self._progress is not None:
            self._progress(self.walk.done, self.walk.total)
        self._changed.set()

    # In a thread; one at a time, and nothing else changes the walk meanwhile.

    def _absorb_in_thread(
        self, batch: list[tuple[PeerId, Cid, bytes]], is_first: bool
    ) -> list[tuple[Cid, int]]:
        wanted: list[tuple[Cid, int]] = []
        store = self._around.store
        if is_first:
            self._lease = store.lease("bitswap", self.root)
            wanted += self.walk.place({self.root: 0}, store.missing([self.root]))
        for _, cid, data in batch:
            self.walk.came(cid, len(data))
        for _, cid, data in batch:
            if dag.is_manifest(cid):
                wanted += self._open(cid, data)
        for _ in range(BATCH_MANIFESTS):
            held = self.walk.next_here() if len(wanted) < LOW_LEAVES else None
            if held is None:
                break
            try:
                data = store.get(held)
            except (ChunkNotFoundError, CorruptChunkError):
                wanted += self.walk.place({held: 0}, [held])
            else:
                self.walk.came(held, len(data))
                wanted += self._open(held, data)
        self._reserve(sum(len(data) for _, _, data in batch))
        if batch:
            store.put_many([(cid, data) for _, cid, data in batch], self._reservation)
        return wanted

    def _open(self, cid: Cid, data: bytes) -> list[tuple[Cid, int]]:
        found = self.walk.open_manifest(cid, dag.links(cid, data))
        return self.walk.place(found, self._around.store.missing(found))

    def _reserve(self, arrived: int) -> None:
        """Keep room promised for what is awaited and what is about to be written.

        Raises:
            QuotaError: There is none.
        """
        needed = self.walk.awaited + arrived
        self._reservation = topped_up(self._reservation, needed, self._around.store.reserve)
