"""Bitswap of one node: serves its store to peers of any kind and fetches from them."""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import TYPE_CHECKING

import structlog
import trio

from protocols.bitswap.fetching import PATIENCE_SECONDS, Fetched, Fetching, Surroundings
from protocols.bitswap.lines import Line, Way
from protocols.bitswap.messages import MAX_FRAME_BYTES, PROTOCOLS, Frames, cid_of, decode, name
from protocols.bitswap.schedule import Ask, Inquire, Withdraw
from protocols.transport import RemoteProtocolError, StreamError, UnreachableError
from storage import cid as cids
from storage.errors import ChunkNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from trio_typing import TaskStatus

    from protocols.bitswap.messages import Message, Payload
    from protocols.progress import Tell
    from protocols.transport import PeerId, Stream, Transport
    from storage.blockstore import Blockstore
    from storage.cid import Cid

__all__ = ["PATIENCE_SECONDS", "BitswapService", "Fetched"]

MAX_PEERS = 256
"""Peers whose wants are kept; the one that was silent the longest makes room."""
MAX_FETCHES = 16
"""At once; more wait their turn."""
SMALL_FRAME_BYTES = 256 * 2**10
"""From a peer that was asked for nothing; a want list of 4,096 entries fits."""
SHORT_FRAME_BYTES = 4 * 2**10
"""Read at once, in a millisecond at most; a longer one, which may be of 65,536 fields, is read in a thread."""
MAX_INCOMPLETE = 8
"""Frames of full length that one peer may have begun on all its streams."""
READ_BYTES = 2**18
LOOK_SECONDS = 2.0
"""Between two looks whether what peers wait for is held by now."""
LOOK_WANTS = 4_096
"""Looked for at a time; those of one peer more at most."""
IDLE_SECONDS = 300.0
"""A peer with no wants that says nothing for this long is forgotten."""
WAITING_SECONDS = 3600.0
"""The same for a peer whose wants wait for chunks that this node does not hold."""
THREADS = 4

_log = structlog.get_logger("swarm.bitswap")


class BitswapService:
    """Serves and fetches chunks.

    Args:
        transport: The network.
        store: Where chunks are kept.
        limiter: Threads for disk and hashing; None gives the service `THREADS` of its own.
        on_misbehaviour: Told (peer, reason) of chunks that nobody asked for.
    """

    def __init__(
        self,
        transport: Transport,
        store: Blockstore,
        limiter: trio.CapacityLimiter | None = None,
        *,
        on_misbehaviour: Callable[[PeerId, str], None] | None = None,
    ) -> None:
        self.bytes_in = 0
        self.bytes_out = 0
        self._transport = transport
        self._store = store
        self._limiter = limiter or trio.CapacityLimiter(THREADS)
        self._on_misbehaviour = on_misbehaviour
        self._nursery: trio.Nursery | None = None
        self._running = trio.Event()
        self._slots = trio.CapacityLimiter(MAX_FETCHES)
        self._fetches: dict[Fetching, None] = {}
        self._lines: OrderedDict[PeerId, Line] = OrderedDict()
        self._ways: dict[PeerId, Way] = {}
        self._incomplete: Counter[PeerId] = Counter()

    def register(self) -> None:
        """Serve peers of every kind."""
        for protocol in PROTOCOLS:
            self._transport.handle(protocol, self._read, members_only=False)

    async def run(self, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the streams to peers; serving and fetching need it. Runs until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._running.set()
            task_status.started()
            try:
                await self._look_again()
            finally:
                self._running = trio.Event()
                self._nursery = None

    async def fetch(
        self,
        root: Cid,
        providers: Sequence[PeerId] | None = None,
        progress: Tell | None = None,
        *,
        label: str = "",
        max_bytes: int | None = None,
        patience: float = PATIENCE_SECONDS,
    ) -> Fetched:
        """Bring everything that a root names into the store; what is there already is not fetched again.

        Waits for `run` and for one of `MAX_FETCHES` turns.

        Args:
            root: A manifest or a chunk.
            providers: Whom to ask; None asks the connected members.
            progress: Told (bytes here, bytes in total) from this task.
            label: What it is, for the log.
            max_bytes: Refuse content that is larger.
            patience: Seconds without a chunk until it is given up.

        Returns:
            What was done.

        Raises:
            NotHeldError: None of the peers has a chunk of it.
            StalledError: The peers cannot be reached, or stopped sending.
            TooLargeError: It has more than `max_bytes`.
            ManifestError: A manifest is malformed.
            QuotaError: It does not fit into what this node lends.
        """
        await self._running.wait()
        around = Surroundings(self._store, self._limiter, self._connect, self._tell, self._arrived)
        async with self._slots:
            peers = self._transport.peers() if providers is None else providers
            fetching = Fetching(around, root, peers, progress, max_bytes, patience)
            self._fetches[fetching] = None
            try:
                fetched = await fetching.run()
            finally:
                del self._fetches[fetching]
        _log.info(
            "bitswap.fetched",
            root=cids.text(root),
            label=label,
            bytes=fetched.bytes,
            chunks=fetched.chunks,
            seconds=round(fetched.seconds, 3),
            peers=len(fetched.from_peers),
        )
        return fetched

    # Streams that peers opened.

    async def _read(self, stream: Stream) -> None:
        frames = Frames()
        held = 0
        try:
            while data := await stream.receive_some(READ_BYTES):
                line = self._line(stream.peer)
                self._heard(line, len(data))
                most = MAX_FRAME_BYTES if line.asked else SMALL_FRAME_BYTES
                for frame in frames.feed(data, most):
                    async with line.turn:
                        await self._take(line, await self._decoded(frame))
                self._incomplete[stream.peer] += frames.held - held
                held = frames.held
                if self._incomplete[stream.peer] > MAX_INCOMPLETE * most:
                    message = f"more than {MAX_INCOMPLETE * most:,} bytes of incomplete frames"
                    raise RemoteProtocolError(message)
        finally:
            self._incomplete[stream.peer] -= held
            if not self._incomplete[stream.peer]:
                del self._incomplete[stream.peer]
        if held:
            message = "the stream ended inside a frame"
            raise StreamError(message)

    async def _decoded(self, frame: bytes) -> Message:
        if len(frame) <= SHORT_FRAME_BYTES:
            return decode(frame)
        return await trio.to_thread.run_sync(decode, frame, limiter=self._limiter)

    def _heard(self, line: Line, count: int) -> None:
        self.bytes_in += count
        line.used = trio.current_time()
        for fetching in self._fetches:
            fetching.heard(line.peer)

    async def _take(self, line: Line, message: Message) -> None:
        if message.blocks:
            named = await trio.to_thread.run_sync(_names, message.blocks, limiter=self._limiter)
            self._take_blocks(line, named)
        for wire, is_held in message.presences:
            cid = cid_of(wire)
            if cid is not None and cid in line.asked:
                for fetching in tuple(self._fetches):
                    fetching.presence(line.peer, cid, is_held=is_held)
        if message.entries or message.full:
            wanted = {
                cid
                for entry in message.entries
                if not entry.cancel and (cid := cid_of(entry.wire)) is not None
            }
            sizes: dict[Cid, int] = {}
            if wanted:
                sizes = await trio.to_thread.run_sync(self._sizes, wanted, limiter=self._limiter)
            line.ledger.take(message, sizes)
            self._wake(line)

    def _take_blocks(self, line: Line, named: Sequence[tuple[Cid | None, bytes]]) -> None:
        """Those that were not asked for are one misbehaviour, however many a message holds."""
        unasked: list[tuple[Cid | None, bytes]] = []
        for cid, data in named:
            if cid is None or cid not in line.asked:
                unasked.append((cid, data))
                continue
            for fetching in tuple(self._fetches):
                fetching.block(line.peer, cid, data)
        if not unasked:
            return
        cid, data = unasked[0]
        what = "no known kind" if cid is None else cids.text(cid)
        reason = f"it sent {len(data):,} bytes of {what}, not asked for"
        _log.warning("bitswap.misbehaviour", peer=line.peer, reason=reason, chunks=len(unasked))
        if self._on_misbehaviour is not None:
            self._on_misbehaviour(line.peer, reason)

    def _sizes(self, wanted: Iterable[Cid]) -> dict[Cid, int]:
        """Bytes of those that are held; in a thread."""
        found: dict[Cid, int] = {}
        for cid in wanted:
            try:
                found[cid] = self._store.size(cid)
            except ChunkNotFoundError:
                continue
        return found

    # Chunks that peers wait for.

    def _arrived(self, sizes: dict[Cid, int]) -> None:
        for line in tuple(self._lines.values()):
            if line.ledger.arrived(sizes):
                self._wake(line)

    async def _look_again(self) -> None:
        """Answer wants of chunks that came by another way, and forget peers that are gone."""
        while True:
            await trio.sleep(LOOK_SECONDS)
            if waiting := self._next_waiting():
                try:
                    self._arrived(
                        await trio.to_thread.run_sync(self._sizes, waiting, limiter=self._limiter)
                    )
                except Exception as error:  # noqa: BLE001 - the store's or the machine's fault; the next look comes
                    _log.warning("bitswap.not_looked", error=repr(error))
            now = trio.current_time()
            for line in tuple(self._lines.values()):
                if now - line.used > (IDLE_SECONDS if line.is_idle else WAITING_SECONDS):
                    self._forget(line)

    def _next_waiting(self) -> set[Cid]:
        """Chunks that peers wait for: of as many peers as make `LOOK_WANTS`, those that were not looked at for longest."""
        found: set[Cid] = set()
        for line in tuple(self._lines.values()):
            if len(found) >= LOOK_WANTS:
                break
            if waiting := line.ledger.waiting():
                found.update(waiting)
                self._lines.move_to_end(line.peer)
        return found

    # The ways to peers.

    def _line(self, peer: PeerId) -> Line:
        line = self._lines.get(peer)
        if line is None:
            while len(self._lines) >= MAX_PEERS:
                self._forget(min(self._lines.values(), key=self._worth))
            line = self._lines[peer] = Line(
                peer, self._transport, self._store, self._limiter, self._count_out
            )
        return line

    def _worth(self, line: Line) -> tuple[bool, bool, float]:
        """By which lines are forgotten, the least first: one that a fetch asks, or whose message is being taken, last of all."""
        way = self._ways.get(line.peer)
        is_needed = (
            line.turn.locked()
            or (way is not None and not way.opened.is_set())
            or any(line.peer in one.schedule.peers for one in self._fetches)
        )
        return is_needed, not line.is_idle, line.used

    def _forget(self, line: Line) -> None:
        self._lines.pop(line.peer, None)
        way = self._ways.pop(line.peer, None)
        if way is not None:
            way.scope.cancel()

    def _wake(self, line: Line) -> None:
        """Let a line say what it has to say, on a stream that is opened if need be."""
        line.wake()
        if line.peer not in self._ways and self._nursery is not None and not line.ledger.is_idle:
            self._start(line)

    def _start(self, line: Line) -> Way:
        assert self._nursery is not None  # noqa: S101 - callers have looked
        way = self._ways[line.peer] = Way()
        self._nursery.start_soon(self._keep, line, way)
        return way

    async def _keep(self, line: Line, way: Way) -> None:
        """Speak with a peer until it is gone."""
        try:
            with way.scope:
                await line.converse(way.opened)
        except UnreachableError as error:
            way.why = error.why
        except Exception as error:  # noqa: BLE001 - what fails with one peer ends its way, and no more
            way.why = f"this node failed: {error!r}"
            _log.warning("bitswap.way_failed", peer=line.peer, error=repr(error))
        finally:
            _log.debug("bitswap.way_over", peer=line.peer, why=way.why)
            line.clear()
            if self._ways.get(line.peer) is way:
                del self._ways[line.peer]
            way.over.set()
            way.opened.set()

    async def _connect(self, peer: PeerId) -> Way:
        """The way to a peer, opened if need be.

        Raises:
            UnreachableError: It cannot be.
        """
        await self._running.wait()
        way = self._ways.get(peer) or self._start(self._line(peer))
        await way.opened.wait()
        if way.over.is_set():
            raise UnreachableError(peer, way.why)
        return way

    def _tell(self, fetching: Fetching, effect: Ask | Inquire | Withdraw) -> None:
        line = self._lines.get(effect.peer)
        if line is None:
            return
        if isinstance(effect, Withdraw):
            others = [one for one in self._fetches if one is not fetching]
            line.cancel(
                cid
                for cid in effect.cids
                if not any(one.schedule.is_asking(effect.peer, cid) for one in others)
            )
        else:
            line.want(effect.cids, have=isinstance(effect, Inquire))

    def _count_out(self, _peer: PeerId, count: int) -> None:
        self.bytes_out += count


def _names(blocks: Sequence[Payload]) -> list[tuple[Cid | None, bytes]]:
    """Compute what chunks are called; in a thread."""
    return [(name(block), block.data) for block in blocks]
