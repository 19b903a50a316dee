"""The exchange of one node: serves its store to peers and fetches from them."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import structlog
import trio

from protocols.exchange.fetching import PATIENCE_SECONDS, Fetched, Fetching
from protocols.exchange.messages import PROTOCOL
from protocols.exchange.notes import waiting_for_a_turn
from protocols.exchange.search import Surroundings
from protocols.exchange.serving import Serving
from protocols.exchange.sessions import Session, Sessions
from protocols.transport import RemoteProtocolError, StreamError
from storage import cid as cids
from storage.chunks import MAX_CHUNK_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trio_typing import TaskStatus

    from protocols.progress import Tell
    from protocols.transport import PeerId, Stream, Transport
    from storage.blockstore import Blockstore
    from storage.cid import Cid

__all__ = ["PATIENCE_SECONDS", "ExchangeService", "FetchStatus", "Fetched", "PeerStats", "Stats"]

MAX_STREAMS = 64
"""Peers served at once; each may hold two batches in memory. The one that is idle the longest makes room."""
MAX_FETCHES = 16
"""At once; more wait their turn."""
BUFFER_BYTES = 24 * 2**20
"""In flight or not written yet, over all fetches."""
THREADS = 4
MAX_REMEMBERED = 1_024
"""Peers whose bytes are counted, and liars that are remembered."""

_log = structlog.get_logger("swarm.exchange")


@dataclass(frozen=True, slots=True)
class PeerStats:
    """Bytes of the exchange with one peer, framing included."""

    bytes_in: int = 0
    bytes_out: int = 0


@dataclass(frozen=True, slots=True)
class FetchStatus:
    """A fetch under way, in bytes."""

    root: Cid
    label: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Stats:
    """What was exchanged since the start.

    Attributes:
        bytes_in: Received.
        bytes_out: Sent.
        peers: The last `MAX_REMEMBERED` peers.
        fetches: Those under way.
        serving: Streams that are being served.
    """

    bytes_in: int = 0
    bytes_out: int = 0
    peers: dict[PeerId, PeerStats] = field(default_factory=dict)
    fetches: tuple[FetchStatus, ...] = ()
    serving: int = 0


class ExchangeService:
    """Serves and fetches chunks.

    Args:
        transport: The network.
        store: Where chunks are kept.
        limiter: Threads for disk and hashing; None gives the service `THREADS` of its own.
        on_misbehaviour: Told (peer, reason) of wrong bytes and broken rules.
    """

    def __init__(
        self,
        transport: Transport,
        store: Blockstore,
        *,
        limiter: trio.CapacityLimiter | None = None,
        on_misbehaviour: Callable[[PeerId, str], None] | None = None,
    ) -> None:
        self._transport = transport
        self._store = store
        self._limiter = limiter or trio.CapacityLimiter(THREADS)
        self._on_misbehaviour = on_misbehaviour
        self._sessions = Sessions(transport, self._count_in, self._note_misbehaviour)
        self._nursery: trio.Nursery | None = None
        self._running = trio.Event()
        self._slots = trio.CapacityLimiter(MAX_FETCHES)
        self._fetches: dict[Fetching, str] = {}
        self._serving: dict[PeerId, Serving] = {}
        self._liars: OrderedDict[PeerId, str] = OrderedDict()
        self._peers: OrderedDict[PeerId, PeerStats] = OrderedDict()
        self._bytes_in = 0
        self._bytes_out = 0

    def register(self) -> None:
        """Serve peers, of other networks too."""
        self._transport.handle(PROTOCOL, self._serve, members_only=False)

    async def run(self, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the streams to providers; fetches need it. Runs until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._running.set()
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._running = trio.Event()

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
        """Bring everything that a root names into the store; what is there already is not fetched again.

        Waits for `run` and for one of `MAX_FETCHES` turns.

        Args:
            root: A manifest or a chunk.
            providers: Whom to ask; None looks for them. Others are looked for when these cannot serve.
            progress: Told (bytes here, bytes in total, from whom it comes or why nothing does) from this task.
            label: What it is, for `stats`.
            max_bytes: Refuse content that is larger.
            patience: Seconds without a chunk until it is given up.
            alone: Bring the one block, and nothing that it names.

        Returns:
            What was done.

        Raises:
            ContentNotFoundError: Nobody that was asked has a chunk of it.
            FetchStalledError: Peers that have it stopped sending.
            ContentTooLargeError: It has more than `max_bytes`.
            ManifestError: A manifest is malformed or lies about sizes.
            QuotaError: It does not fit into what this node lends.
        """
        await self._running.wait()
        if progress is not None and not self._slots.available_tokens:
            progress(0, 0, waiting_for_a_turn(MAX_FETCHES))
        async with self._slots:
            fetching = Fetching(
                self._around(), root, providers, progress, max_bytes, patience, alone=alone
            )
            self._fetches[fetching] = label
            try:
                fetched = await fetching.run()
            finally:
                del self._fetches[fetching]
        (_log.debug if alone else _log.info)(
            "exchange.fetched",
            root=cids.text(root),
            bytes=fetched.bytes,
            chunks=fetched.chunks,
            seconds=round(fetched.seconds, 3),
            peers=len(fetched.from_peers),
        )
        return fetched

    def stats(self) -> Stats:
        """What was exchanged, and what is under way."""
        return Stats(
            self._bytes_in,
            self._bytes_out,
            dict(self._peers),
            tuple(
                FetchStatus(one.root, label, one.walk.done, one.walk.total)
                for one, label in self._fetches.items()
            ),
            len(self._serving),
        )

    def _around(self) -> Surroundings:
        return Surroundings(
            self._transport,
            self._store,
            self._limiter,
            self._session,
            self._share,
            self._liars.__contains__,
            self._note_liar,
        )

    def _share(self) -> int:
        return max(MAX_CHUNK_BYTES, BUFFER_BYTES // max(1, len(self._fetches)))

    async def _session(self, peer: PeerId) -> Session:
        await self._running.wait()
        assert self._nursery is not None  # noqa: S101 - set before `_running` is
        return await self._sessions.get(peer, self._nursery)

    async def _serve(self, stream: Stream) -> None:
        older = self._serving.pop(stream.peer, None)
        if older is not None:
            older.stop()
        if len(self._serving) >= MAX_STREAMS and not self._make_room():
            await stream.reset()
            return
        serving = Serving(stream, self._store, self._limiter, self._count_out)
        self._serving[stream.peer] = serving
        try:
            await serving.run()
            await (stream.reset() if serving.is_given_up else stream.close())
        except RemoteProtocolError as error:
            self._note_misbehaviour(stream.peer, str(error))
            await stream.reset()
        except (StreamError, trio.TooSlowError) as error:
            _log.debug("exchange.stream_lost", peer=stream.peer, why=str(error))
            await stream.reset()
        finally:
            if self._serving.get(stream.peer) is serving:
                del self._serving[stream.peer]

    def _make_room(self) -> bool:
        """End the stream that has been idle the longest; false where every peer is owed something."""
        idle = {
            peer: since
            for peer, serving in self._serving.items()
            if (since := serving.idle_since) is not None
        }
        if not idle:
            return False
        self._serving.pop(min(idle, key=idle.__getitem__)).give_up()
        return True

    def _note_liar(self, peer: PeerId, reason: str) -> None:
        """Remember it, and name it once: more of its wrong chunks may have been under way already."""
        known = peer in self._liars
        self._liars[peer] = reason
        self._liars.move_to_end(peer)
        if len(self._liars) > MAX_REMEMBERED:
            self._liars.popitem(last=False)
        if not known:
            self._note_misbehaviour(peer, reason)

    def _note_misbehaviour(self, peer: PeerId, reason: str) -> None:
        _log.warning("exchange.misbehaviour", peer=peer, reason=reason)
        if self._on_misbehaviour is not None:
            self._on_misbehaviour(peer, reason)

    def _count_in(self, peer: PeerId, count: int) -> None:
        self._bytes_in += count
        found = self._stats_of(peer)
        self._peers[peer] = replace(found, bytes_in=found.bytes_in + count)

    def _count_out(self, peer: PeerId, count: int) -> None:
        self._bytes_out += count
        found = self._stats_of(peer)
        self._peers[peer] = replace(found, bytes_out=found.bytes_out + count)

    def _stats_of(self, peer: PeerId) -> PeerStats:
        found = self._peers.pop(peer, None) or PeerStats()
        if len(self._peers) >= MAX_REMEMBERED:
            self._peers.popitem(last=False)
        return found
