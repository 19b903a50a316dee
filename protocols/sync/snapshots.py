"""Hand-offs and snapshots on the wire: `SnapshotService` gives them, `Arrival` fetches a state by them.

`/swarm/snapshot/1.0.0`; one request a stream, then the answer, then the answerer closes. Frames are `protocols.framing`.

    [1]                    holdings  -> one frame [first block, [height of a snapshot, ...]]
    [2, epoch, count]      hand-offs -> a frame for each epoch from there on, as many as are held, at most 256
    [3, height, from, to]  ranges    -> a frame for each range of that snapshot, from the one that the path `from` falls
                                       into to the one of `to`, at most 64; none if the snapshot is not held
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import trio

from protocols.answering import Answering, Paced
from protocols.sync.asking import ANSWER_SECONDS, ask, ask_one, send
from protocols.sync.core import Pieces, choose
from protocols.sync.errors import CheckpointError, SyncMessageError, UnsignedError
from protocols.sync.service import fetch_pair
from protocols.sync.snapshot_messages import (
    MAX_HANDOFF_BYTES,
    MAX_HANDOFFS,
    MAX_HOLDINGS_BYTES,
    MAX_RANGE_BYTES,
    MAX_RANGES,
    MAX_REQUEST_BYTES,
    PATH_BYTES,
    AskHandoffs,
    AskHoldings,
    AskRanges,
    Holdings,
    Request,
    decode_request,
)
from protocols.transport import RemoteProtocolError, StreamError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from protocols.sync.core import PeerBook
    from protocols.transport import PeerId, Stream, Transport

T = TypeVar("T")

PROTOCOL: Final = "/swarm/snapshot/1.0.0"
STREAMS: Final = 16
STREAMS_PER_PEER: Final = 4
RANGE_SLICE: Final = 8
"""Ranges that are read from the disk at a time."""
HOLDERS: Final = 8
"""Peers that are asked what they hold, and then for ranges."""
STREAMS_PER_HOLDER: Final = 2
PIECES: Final = 64
END: Final = 1 << 8 * PATH_BYTES
AGAIN_SECONDS: Final = 2.0
"""How long a peer without work waits before it is asked for what another was asked for."""


class SnapshotSource(Protocol):
    """What a node answers from; calls are synchronous, short reads, and may come from any thread."""

    def first_block(self) -> int:
        """From this height on every block is held."""

    def snapshots(self) -> Sequence[int]:
        """Heights of the snapshots that are ready, the newest first."""

    def handoffs(self, epoch: int, limit: int) -> Sequence[bytes]:
        """Hand-offs from an epoch on; fewer where fewer are held."""

    def ranges(
        self, height: int, first: bytes, last: bytes, limit: int
    ) -> tuple[Sequence[bytes], bytes | None]:
        """Ranges of a snapshot from a path to another, and the path of the next one, if it is within.

        None at all if the snapshot is not held.
        """


class Newcomer(Protocol):
    """What takes a snapshot in; all but `finish` are synchronous and come from one thread at a time."""

    @property
    def behind_for_land(self) -> int:
        """So many blocks behind, a snapshot is looked for."""

    def refusal(self) -> str | None:
        """Why nothing may be taken from peers now, and what to do; None if it may."""

    def useful(self, heights: Sequence[int], tip: int) -> list[int]:
        """Those snapshots that bring this node on, when somebody claims a tip."""

    def arriving(self) -> int:
        """The height of the snapshot of which a part is held; -1 for none."""

    def next_epoch(self) -> int:
        """Whose hand-off comes next."""

    def epoch_of(self, height: int) -> int:
        """The epoch that a snapshot's height ends."""

    def take_handoff(self, data: bytes) -> None:
        """Check the next hand-off and keep it.

        Raises:
            RemoteProtocolError: It is not one.
            CheckpointError: It is not the checkpoint that this node was given.
        """

    def begin(self, height: int) -> list[tuple[int, int]]:
        """Make ready for a snapshot whose hand-off was taken; the paths that are missing, from and to (not with it)."""

    def take_range(self, data: bytes) -> tuple[int, int]:
        """Check a range and store it; from and to (not with it).

        Raises:
            RemoteProtocolError: It is not of this state.
        """

    async def finish(self, block: bytes) -> None:
        """Go on from the state, now that all of it is here.

        Args:
            block: The one of the snapshot's height.

        Raises:
            RemoteProtocolError: It is another block.
            UnsignedError: A finalization does not hold that could not be checked before; another peer may have it.
        """


class SnapshotService:
    """Answers other nodes.

    Args:
        transport: The network; the handler is registered at once.
        source: What is answered from.
        in_thread: False reads the source on the event loop, for tests on a virtual clock.
    """

    def __init__(
        self, transport: Transport, source: SnapshotSource, *, in_thread: bool = True
    ) -> None:
        self._source = source
        self._in_thread = in_thread
        self._limiter = trio.CapacityLimiter(2)
        self._answering = Answering(STREAMS, STREAMS_PER_PEER, MAX_REQUEST_BYTES, ANSWER_SECONDS)
        transport.handle(PROTOCOL, self._serve)

    async def _serve(self, stream: Stream) -> None:
        await self._answering.serve(
            stream, lambda asked, data: self._answer(Paced(asked), decode_request(data))
        )

    async def _answer(self, stream: Stream, request: Request) -> None:
        source = self._source
        match request:
            case AskHoldings():
                first = await _call(source.first_block, thread=self._in_thread)
                heights = await _call(source.snapshots, thread=self._in_thread)
                await send(stream, Holdings(first, tuple(heights)).encode())
            case AskHandoffs(epoch, count):
                for one in await _call(source.handoffs, epoch, count, thread=self._in_thread):
                    await send(stream, one)
            case AskRanges(height, first, last):
                await self._send_ranges(stream, height, first, last)

    async def _send_ranges(self, stream: Stream, height: int, first: bytes, last: bytes) -> None:
        for _ in range(MAX_RANGES // RANGE_SLICE):
            found, following = await _call(
                self._source.ranges, height, first, last, RANGE_SLICE, thread=self._in_thread
            )
            for one in found:
                await send(stream, one)
            if following is None:
                return
            first = following


class Arrival:
    """Brings a node to a snapshot of its peers.

    Args:
        transport: The network.
        newcomer: What takes the snapshot in.
        on_lie: Told which peer lied and how.
        in_thread: False works on the event loop, for tests on a virtual clock.
    """

    def __init__(
        self,
        transport: Transport,
        newcomer: Newcomer,
        *,
        on_lie: Callable[[PeerId, str], None] = lambda _peer, _why: None,
        in_thread: bool = True,
    ) -> None:
        self._transport = transport
        self._newcomer = newcomer
        self._on_lie = on_lie
        self._in_thread = in_thread
        self._limiter = trio.CapacityLimiter(1)
        self._contradiction: CheckpointError | None = None
        self._handed: tuple[int, PeerId] | None = None
        """The newest hand-off that was taken: its epoch, and who gave it."""

    @property
    def behind_for_land(self) -> int:
        """So many blocks behind, a snapshot is looked for."""
        return self._newcomer.behind_for_land

    def refusal(self) -> str | None:
        """Why nothing may be taken from peers now, and what to do; None if it may."""
        return self._newcomer.refusal()

    async def first_block(self, peer: PeerId) -> int:
        """From which height on a peer holds blocks; 0 if it does not tell."""
        try:
            return (await self._holdings(peer)).first_block
        except (UnreachableError, StreamError, RemoteProtocolError, trio.TooSlowError):
            return 0

    async def land(self, book: PeerBook) -> bool:
        """Take a snapshot, if somebody has one that brings this node on.

        Args:
            book: Peers and the tips that they claim; it learns who fails and who lies.

        Returns:
            Whether this node stands on a snapshot now that it did not stand on before.

        Raises:
            CheckpointError: A peer's chain is not the one of the checkpoint, and nobody else's would do.
        """
        self._contradiction = None
        peers = [peer for peer in self._transport.peers() if peer in book.tips][:HOLDERS]
        tip = max((book.tips[peer] for peer in peers), default=0)
        offers = await self._offers(book, peers)
        heights = sorted({height for held in offers.values() for height in held})
        useful = await self._do(self._newcomer.useful, heights, tip)
        height = choose(offers, useful, self._newcomer.arriving())
        if height is None:
            return False
        holders = [peer for peer, held in offers.items() if height in held]
        if not await self._follow(book, holders, height):
            return self._not_landed()
        pieces = Pieces(await self._do(self._newcomer.begin, height), PIECES, END)
        await self._fetch(book, holders, height, pieces)
        return pieces.done and await self._finish(book, holders, height)

    def _not_landed(self) -> bool:
        if self._contradiction is not None:
            raise self._contradiction
        return False

    async def _offers(self, book: PeerBook, peers: list[PeerId]) -> dict[PeerId, tuple[int, ...]]:
        offers: dict[PeerId, tuple[int, ...]] = {}

        async def ask(peer: PeerId) -> None:
            with _Blame(self, book, peer, fails=False):
                offers[peer] = (await self._holdings(peer)).snapshots

        async with trio.open_nursery() as nursery:
            for peer in peers:
                nursery.start_soon(ask, peer)
        return offers

    async def _holdings(self, peer: PeerId) -> Holdings:
        data = await ask_one(self._transport, peer, PROTOCOL, AskHoldings(), MAX_HOLDINGS_BYTES)
        return Holdings.decode(data)

    async def _follow(self, book: PeerBook, holders: list[PeerId], height: int) -> bool:
        """Follow the hand-offs up to a snapshot's height; one peer after another is asked, who failed least first."""
        newcomer = self._newcomer
        last = newcomer.epoch_of(height)
        for peer in sorted(holders, key=lambda one: book.failures.get(one, 0)):
            with _Blame(self, book, peer):
                while newcomer.next_epoch() <= last:
                    before = newcomer.next_epoch()
                    count = min(MAX_HANDOFFS, last + 1 - before)
                    request = AskHandoffs(before, count)
                    async with ask(
                        self._transport, peer, PROTOCOL, request, MAX_HANDOFF_BYTES
                    ) as answer:
                        for _ in range(count):
                            data = await answer.read()
                            if data is None:
                                break
                            await self._do(newcomer.take_handoff, data)
                            self._handed = (newcomer.next_epoch() - 1, peer)
                    if newcomer.next_epoch() < before + count:
                        break
            if newcomer.next_epoch() > last:
                return True
            book.failed(peer, trio.current_time())
        return False

    async def _fetch(
        self, book: PeerBook, holders: list[PeerId], height: int, pieces: Pieces
    ) -> None:
        """Ask every holder at once until nothing is missing, or nobody is left to ask."""
        if pieces.done:
            return
        async with trio.open_nursery() as nursery:

            async def work(peer: PeerId) -> None:
                with _Blame(self, book, peer):
                    while not pieces.done and peer not in book.lied:
                        piece = pieces.take()
                        if piece is None:
                            await trio.sleep(AGAIN_SECONDS)
                            piece = pieces.take(again=True)
                        if piece is not None:
                            try:
                                await self._fetch_piece(peer, height, pieces, piece.low, piece.high)
                            finally:
                                pieces.give_back(piece)
                if pieces.done:
                    nursery.cancel_scope.cancel()

            for peer in holders:
                if peer not in book.lied:
                    for _ in range(STREAMS_PER_HOLDER):
                        nursery.start_soon(work, peer)

    async def _fetch_piece(
        self, peer: PeerId, height: int, pieces: Pieces, low: int, high: int
    ) -> None:
        first, last = (at.to_bytes(PATH_BYTES, "big") for at in (low, high - 1))
        request = AskRanges(height, first, last)
        async with ask(self._transport, peer, PROTOCOL, request, MAX_RANGE_BYTES) as answer:
            at = low
            for _ in range(MAX_RANGES):
                data = await answer.read()
                if data is None:
                    break
                begin, end = await self._do(self._newcomer.take_range, data)
                pieces.arrived(begin, end)
                if not begin <= at < end:
                    message = "a range that was not asked for"
                    raise SyncMessageError(message)
                at = end
                if at >= high:
                    return
            if at == low:
                message = "the peer no longer has the snapshot"
                raise StreamError(message)

    async def _finish(self, book: PeerBook, holders: list[PeerId], height: int) -> bool:
        """Fetch the block of the snapshot's height, and change over."""
        for peer in holders:
            with _Blame(self, book, peer):
                block, _ = await fetch_pair(self._transport, peer, height)
                try:
                    await self._newcomer.finish(block)
                except UnsignedError:  # who gave the block is not to blame
                    if self._handed is not None and self._handed[0] == self._newcomer.epoch_of(
                        height
                    ):
                        book.failed(self._handed[1], trio.current_time())
                    break
                return True
        return self._not_landed()

    async def _do(self, function: Callable[..., T], *arguments: object) -> T:
        return await _call(function, *arguments, thread=self._in_thread, limiter=self._limiter)

    def contradicted(self, why: CheckpointError) -> None:
        """A peer's chain is not the one of the checkpoint; which of them is wrong is for a person to say."""
        self._contradiction = why

    def lied(self, book: PeerBook, peer: PeerId, why: str) -> None:
        """A peer is not asked again."""
        if peer not in book.lied:
            book.caught(peer)
            self._on_lie(peer, why)


class _Blame:
    """Turns what goes wrong with one peer into what the book knows of it."""

    def __init__(
        self, arrival: Arrival, book: PeerBook, peer: PeerId, *, fails: bool = True
    ) -> None:
        self._arrival, self._book, self._peer, self._fails = arrival, book, peer, fails

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        if isinstance(error, CheckpointError):
            self._arrival.contradicted(error)
            self._book.failed(self._peer, trio.current_time())
        elif isinstance(error, RemoteProtocolError):
            self._arrival.lied(self._book, self._peer, str(error))
        elif isinstance(error, UnreachableError | StreamError | trio.TooSlowError):
            if self._fails:
                self._book.failed(self._peer, trio.current_time())
        else:
            return False
        return True


async def _call(
    function: Callable[..., T],
    *arguments: object,
    thread: bool,
    limiter: trio.CapacityLimiter | None = None,
) -> T:
    if thread:
        return await trio.to_thread.run_sync(function, *arguments, limiter=limiter)
    await trio.lowlevel.checkpoint()
    return function(*arguments)
