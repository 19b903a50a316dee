"""One fetch: asks as the schedule says, checks and stores what comes, walks the DAG, and tells how it stands."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import trio

from protocols.exchange.core import LOW_LEAVES, Ask, Drop, Schedule, Withdraw
from protocols.exchange.errors import ContentNotFoundError, FetchStalledError
from protocols.exchange.notes import Standing, note
from protocols.exchange.search import Search
from protocols.exchange.walk import Walk
from storage import cid as cids
from storage import dag
from storage.dag import is_manifest
from storage.errors import ChunkNotFoundError, CorruptChunkError
from storage.quota import topped_up

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from protocols.exchange.core import Effect
    from protocols.exchange.search import Surroundings
    from protocols.progress import Tell
    from protocols.transport import PeerId
    from storage.cid import Cid
    from storage.leases import Lease
    from storage.quota import Reservation

PATIENCE_SECONDS = 20.0
"""Without a chunk for this long a fetch ends with an error."""
LEAST_RATE = 4_096
"""Bytes a second that let a fetch wait longer for a large chunk on a slow path."""
BATCH_BYTES = 4 * 2**20
"""Checked and written at a time; one chunk more at most."""
BATCH_MANIFESTS = 256
"""Manifests read back from the store at a time."""
TICK_SECONDS = 0.25
NOTE_SECONDS = 0.5
"""Between two looks at how it stands."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a fetch did.

    Attributes:
        root: What was fetched.
        bytes: That came from peers and were stored.
        chunks: How many came.
        seconds: How long it took.
        from_peers: Bytes from each provider.
    """

    root: Cid
    bytes: int
    chunks: int
    seconds: float
    from_peers: dict[PeerId, int]


_Blocks: TypeAlias = list[tuple["PeerId", "Cid", bytes]]


@dataclass(slots=True)
class _Absorbed:
    wanted: list[tuple[Cid, int]] = field(default_factory=list)


class Fetching:
    """One fetch; a `sessions.Sink`.

    Args:
        around: The service.
        root: What is fetched.
        providers: Whom to ask first; None looks for them.
        progress: Told (bytes here, bytes in total, how it stands) from the fetch's task.
        limit: Bytes that the caller accepts.
        patience: Seconds without a chunk until it is given up.
        alone: Fetch the one block, and nothing that it names.
    """

    def __init__(
        self,
        around: Surroundings,
        root: Cid,
        providers: Sequence[PeerId] | None,
        progress: Tell | None,
        limit: int | None,
        patience: float,
        *,
        alone: bool = False,
    ) -> None:
        self.root = root
        self._alone = alone
        self.walk = Walk(root, limit)
        self._around = around
        self._progress = progress
        self._note = ""
        self._patience = patience
        self._started = trio.current_time()
        self._note_at = self._started + NOTE_SECONDS
        self._schedule = Schedule(self._started)
        self._inbox: deque[tuple[PeerId, Cid, bytes]] = deque()
        self._checked, self._to_keep = trio.open_memory_channel[_Blocks](0)
        self._heard = 0
        self._heard_at = self._started
        self._from_peers: dict[PeerId, int] = {}
        self._search = Search(
            around, root, providers, self._schedule, self, self._from_peers, self._wake
        )
        self._chunks = 0
        self._reservation: Reservation | None = None
        self._lease: Lease | None = None
        self._changed = trio.Event()
        self._arrived = trio.Event()
        self._is_done = False
        self._failure: Exception | None = None

    async def run(self) -> Fetched:
        """Fetch until everything is here.

        Raises:
            ContentNotFoundError: Nobody has a chunk of it.
            FetchStalledError: Peers that have it stopped sending.
            ContentTooLargeError: It is larger than the limit.
            ManifestError: A manifest is malformed or lies about sizes.
            QuotaError: It does not fit.
        """
        try:
            async with trio.open_nursery() as nursery:
                for part in (self._check_all, self._absorb_all, self._search.run):
                    nursery.start_soon(self._guard, part)
                await self._guard(self._drive)
                nursery.cancel_scope.cancel()
        finally:
            self._is_done = True
            for session in list(self._search.sessions.values()):
                session.detach(self)
            if self._reservation is not None:
                self._reservation.release()
            if self._lease is not None:
                self._lease.close()
        if self._failure is not None:
            raise self._failure
        return Fetched(
            self.root,
            sum(self._from_peers.values()),
            self._chunks,
            trio.current_time() - self._started,
            dict(self._from_peers),
        )

    # What sessions tell.

    def heard(self, peer: PeerId, count: int) -> None:
        """See `sessions.Sink`."""
        self._heard += count
        self._heard_at = trio.current_time()
        self._schedule.heard(peer, self._heard_at)

    def block(self, peer: PeerId, cid: Cid, data: bytes) -> None:
        """See `sessions.Sink`."""
        if self._is_done:
            return
        is_needed, effects = self._schedule.received(peer, cid, len(data), trio.current_time())
        self._apply(effects)
        if is_needed:
            self._heard = 0
            self._inbox.append((peer, cid, data))
            self._arrived.set()
        self._changed.set()

    def lacks(self, peer: PeerId, cid: Cid) -> None:
        """See `sessions.Sink`."""
        self._schedule.lacks(peer, cid)
        self._search.told.setdefault(peer, f"{peer} does not have {cids.text(cid)}")
        self._changed.set()

    def lost(self, peer: PeerId, why: str) -> None:
        """See `sessions.Sink`."""
        self._schedule.leave(peer)
        self._search.told[peer] = f"{peer}: {why}"
        self._changed.set()

    # The tasks.

    def _wake(self) -> None:
        self._changed.set()

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
            schedule = self._schedule
            self._apply(schedule.tick(now, self._around.share()))
            if schedule.is_checking:
                schedule.last_progress = now
            waited = now - schedule.last_progress
            is_silent = now - max(self._heard_at, schedule.last_progress) > self._patience
            if is_silent or waited > self._patience + self._heard / LEAST_RATE:
                raise self._give_up(waited)
            if schedule.is_starving:
                self._search.starve()
            self._look_how_it_stands(now)
            with trio.move_on_after(TICK_SECONDS):
                await self._changed.wait()

    def _look_how_it_stands(self, now: float) -> None:
        if self._progress is None or self.walk.is_complete or now < self._note_at:
            return
        self._note_at = now + NOTE_SECONDS
        schedule, search = self._schedule, self._search
        standing = Standing(
            schedule.senders(now),
            schedule.missing,
            schedule.is_checking,
            search.liars,
            search.dialling,
            len(search.unreachable),
            search.answers,
            search.has_looked,
            search.again(now),
        )
        if (told := note(standing)) != self._note:
            self._note = told
            self._progress(self.walk.done, self.walk.total, told)

    def _give_up(self, waited: float) -> Exception:
        asked = tuple(self._search.told.values())
        schedule = self._schedule
        wanted = schedule.first_wanted()
        if schedule.is_starving and wanted is not None and not schedule.fell_silent:
            return ContentNotFoundError(wanted, asked, waited)
        return FetchStalledError(self.root, self.walk.done, self.walk.total, asked, waited)

    def _apply(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            session = self._search.sessions.get(effect.peer)
            if isinstance(effect, Drop):
                self._search.told[effect.peer] = f"{effect.peer}: {effect.reason}"
                if session is not None:
                    session.stop(effect.reason)
            elif session is None:
                continue
            elif isinstance(effect, Ask):
                for cid in session.want(self, effect.cids):
                    self._schedule.put_back(effect.peer, cid)
            elif isinstance(effect, Withdraw):
                session.cancel(self, effect.cids)

    async def _check_all(self) -> None:
        """Hash what comes; one batch is hashed while the one before it is written."""
        while True:
            if not self._inbox:
                self._arrived = trio.Event()
                await self._arrived.wait()
            batch: _Blocks = []
            size = 0
            while self._inbox and size < BATCH_BYTES:
                batch.append(self._inbox.popleft())
                size += len(batch[-1][2])
            good = await trio.to_thread.run_sync(_matching, batch, limiter=self._around.limiter)
            if len(good) < len(batch):
                names = {cid for _, cid, _ in good}
                for peer, cid, data in batch:
                    if cid not in names:
                        self._refuse(peer, cid, len(data))
            if good:
                await self._checked.send(good)

    def _refuse(self, peer: PeerId, cid: Cid, size: int) -> None:
        self._around.on_liar(peer, f"it sent {size:,} bytes that are not {cids.text(cid)}")
        self._apply(self._schedule.refuse(peer, cid, size))
        self._changed.set()

    async def _absorb_all(self) -> None:
        """Store what was checked, and learn from it what else is needed."""
        await self._absorb([], first=True)
        while not self.walk.is_complete:
            batch: _Blocks = []
            if not (self.walk.has_here and self._schedule.queued < LOW_LEAVES):
                batch = await self._to_keep.receive()
            else:
                with suppress(trio.WouldBlock):
                    batch = self._to_keep.receive_nowait()
            await self._absorb(batch)
        self._is_done = True
        self._changed.set()

    async def _absorb(self, batch: _Blocks, *, first: bool = False) -> None:
        result = await trio.to_thread.run_sync(
            self._start_in_thread if first else self._absorb_in_thread,
            batch,
            limiter=self._around.limiter,
        )
        for peer, cid, data in batch:
            self._schedule.stored(cid)
            self._from_peers[peer] = self._from_peers.get(peer, 0) + len(data)
        self._chunks += len(batch)
        for cid, size in result.wanted:
            self._schedule.add(cid, size)
        if self._progress is not None:
            told = "" if self.walk.is_complete else self._note
            self._progress(self.walk.done, self.walk.total, told)
        self._changed.set()

    # In a thread; one of these at a time, and nothing else touches the walk meanwhile.

    def _start_in_thread(self, _batch: _Blocks) -> _Absorbed:
        result = _Absorbed()
        store = self._around.store
        self._lease = store.lease("fetch", None if self._alone else self.root)
        result.wanted += self.walk.place([self.root], store.missing([self.root]))
        self._walk_what_is_here(result)
        self._reserve(0)
        return result

    def _absorb_in_thread(self, batch: _Blocks) -> _Absorbed:
        result = _Absorbed()
        for _, cid, data in batch:
            if is_manifest(cid):
                self._open(cid, data, result, came=True)
        for _, cid, data in batch:
            if not is_manifest(cid):
                self.walk.settle_leaf(cid, len(data))
        self._walk_what_is_here(result)
        self._reserve(sum(len(data) for _, _, data in batch))
        if batch:
            self._around.store.put_many([(cid, data) for _, cid, data in batch], self._reservation)
        return result

    def _open(self, cid: Cid, data: bytes, result: _Absorbed, *, came: bool) -> None:
        # Of a block alone too: a malformed one would be held, and no collection could tell what it keeps alive.
        found = dag.links(cid, data)
        links = [] if self._alone else [(link.cid, link.size) for link in found]
        children = self.walk.open_manifest(cid, len(data), links, came=came)
        result.wanted += self.walk.place(children, self._around.store.missing(children))

    def _walk_what_is_here(self, result: _Absorbed) -> None:
        for _ in range(BATCH_MANIFESTS):
            cid = self.walk.next_here() if len(result.wanted) < LOW_LEAVES else None
            if cid is None:
                return
            try:
                data = self._around.store.get(cid)
            except (ChunkNotFoundError, CorruptChunkError):
                result.wanted += self.walk.place([cid], [cid])
            else:
                self._open(cid, data, result, came=False)

    def _reserve(self, arrived: int) -> None:
        """Keep room promised for what is awaited and what is about to be written.

        Raises:
            QuotaError: There is none.
        """
        needed = self.walk.awaited + arrived
        self._reservation = topped_up(self._reservation, needed, self._around.store.reserve)


def _matching(batch: _Blocks) -> _Blocks:
    """Those whose bytes hash to their names; in a thread."""
    return [block for block in batch if cids.matches(block[1], block[2])]
