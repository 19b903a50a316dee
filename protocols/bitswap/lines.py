"""What this node says to one peer, on one stream that stays open: answers from its ledger, and our own wants."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from protocols.bitswap.core import Ledger
from protocols.bitswap.messages import PROTOCOLS, Entry, Message, block_frame, encode
from protocols.transport import StreamError, UnreachableError
from storage.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from protocols.bitswap.core import Due
    from protocols.transport import PeerId, Stream, Transport
    from storage.blockstore import Blockstore
    from storage.cid import Cid

BATCH_BYTES = 2 * 2**20
"""Read from the store at a time, and in memory for a peer that does not take them; at most one chunk more."""
MAX_ENTRIES = 1_024
"""Wants in one message of ours."""
MAX_ASKED = 8_192
"""Chunks asked of a peer that are remembered, so that late answers are known for what they are."""
OPEN_SECONDS = 15.0
PART_BYTES = 2**18
SEND_SECONDS = 60.0
"""A peer that does not take `PART_BYTES` within this time is given up: who takes 4 KiB a second is served."""
LINGER_SECONDS = 5.0
"""A stream with nothing left to say is closed after so long: Helia gives one up after 10 s."""
CLOSE_SECONDS = 1.0
"""For the peer to close its side too, where there is more to say; else it has `SEND_SECONDS` to read what is under way."""
STEADY_SECONDS = 5.0
"""A stream that was lost sooner counts as a break; after `MAX_BREAKS` in a row the peer is given up."""
MAX_BREAKS = 5
MAX_TRIES = 3
"""Streams on which one frame is tried."""
PAUSE_SECONDS = 0.1
"""Before the stream after a break, longer with each."""


@dataclass(slots=True)
class Way:
    """A line's task.

    Attributes:
        scope: Cancels it.
        opened: Set once a stream is open, or will not be.
        over: Set at its end.
        why: What ended it.
    """

    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    opened: trio.Event = field(default_factory=trio.Event)
    over: trio.Event = field(default_factory=trio.Event)
    why: str = ""


class Line:
    """What is said to one peer.

    Args:
        peer: Who.
        transport: The network.
        store: Where chunks are read from.
        limiter: The room's threads.
        on_bytes: Told (peer, bytes sent).

    Attributes:
        ledger: What the peer wants.
        asked: Chunks that were asked of it lately.
        turn: Held while one of its messages is taken, so that they are taken in order.
        used: Trio time of the last message, either way.
    """

    def __init__(
        self,
        peer: PeerId,
        transport: Transport,
        store: Blockstore,
        limiter: trio.CapacityLimiter,
        on_bytes: Callable[[PeerId, int], None],
    ) -> None:
        self.peer = peer
        self.ledger = Ledger()
        self.asked: OrderedDict[Cid, None] = OrderedDict()
        self.turn = trio.Lock()
        self.used = trio.current_time()
        self._transport = transport
        self._store = store
        self._limiter = limiter
        self._on_bytes = on_bytes
        self._outbox: dict[bytes, Entry] = {}
        self._frames: deque[tuple[bytes | memoryview, ...]] = deque()
        self._tries = 0
        self._heard_out = trio.Event()
        self._work = trio.Event()
        self._protocol = PROTOCOLS[0]

    @property
    def is_idle(self) -> bool:
        """Whether nothing is to be said, and nothing is waited for."""
        return not self._has_words and not self.ledger.count

    def wake(self) -> None:
        """There may be something to say."""
        self._work.set()

    def want(self, wanted: Iterable[Cid], *, have: bool = False) -> None:
        """Ask for chunks, or whether they are held."""
        for cid in wanted:
            self.asked[cid] = None
            self.asked.move_to_end(cid)
            self._outbox[bytes(cid)] = Entry(bytes(cid), have=have, dont_have=True)
        while len(self.asked) > MAX_ASKED:
            self.asked.popitem(last=False)
        self.wake()

    def cancel(self, unwanted: Iterable[Cid]) -> None:
        """These are no longer wanted."""
        for cid in unwanted:
            self._outbox[bytes(cid)] = Entry(bytes(cid), cancel=True)
        self.wake()

    async def open(self) -> Stream:
        """Open the stream in the newest protocol that the peer speaks.

        Raises:
            UnreachableError: It cannot be reached, or speaks no Bitswap.
        """
        failure: UnreachableError | None = None
        try:
            with trio.fail_after(OPEN_SECONDS):
                for protocol in PROTOCOLS:
                    try:
                        stream = await self._transport.open_stream(self.peer, protocol)
                    except UnreachableError as error:
                        failure = failure or error
                    else:
                        self._protocol = protocol
                        return stream
        except trio.TooSlowError:
            raise UnreachableError(self.peer, f"no stream within {OPEN_SECONDS:.0f} s") from None
        except StreamError as error:
            raise UnreachableError(self.peer, str(error)) from error
        raise failure or UnreachableError(self.peer, "it speaks no Bitswap")

    def clear(self) -> None:
        """The peer is gone: on a new connection it says again what it wants, and so does this node."""
        self.ledger = Ledger()
        self._outbox.clear()
        self._frames.clear()
        self._tries = 0

    async def converse(self, opened: trio.Event) -> None:
        """Say what there is to say, on one stream after the other; a stream is closed when nothing is left to say.

        Args:
            opened: Set once the first stream is open.

        Raises:
            UnreachableError: The peer is gone, speaks no Bitswap, or takes nothing.
        """
        breaks = 0
        while True:
            stream = await self.open()
            opened.set()
            began = trio.current_time()
            why = await self._use(stream)
            if why is None or trio.current_time() - began > STEADY_SECONDS:
                breaks = 0
            else:
                breaks += 1
                if breaks > MAX_BREAKS:
                    raise UnreachableError(self.peer, why)
                await trio.sleep(PAUSE_SECONDS * breaks)
            while not self._has_words:
                self._work = trio.Event()
                await self._work.wait()

    @property
    def _has_words(self) -> bool:
        return bool(self._frames or self._outbox) or not self.ledger.is_idle

    async def _use(self, stream: Stream) -> str | None:
        """Use one stream until it is lost, and return why; or until nothing was left to say for a while.

        Raises:
            UnreachableError: The peer takes nothing.
        """
        ends: list[str] = []
        is_slow = False
        self._heard_out = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, stream, ends, nursery.cancel_scope)
            try:
                await self._say(stream)
                await stream.close()
                await self._wait_until_taken()
            except StreamError as error:
                ends.append(str(error))
            except trio.TooSlowError:
                is_slow = True
            finally:
                with trio.CancelScope(shield=True), trio.move_on_after(1):
                    await stream.reset()
            nursery.cancel_scope.cancel()
        if is_slow:
            raise UnreachableError(self.peer, f"it took nothing for {SEND_SECONDS:.0f} s")
        return ends[0] if ends else None

    async def _wait_until_taken(self) -> None:
        """Wait for the peer to close its side, which it does when it has read all; not for long where there is more to say."""
        with trio.move_on_after(CLOSE_SECONDS):
            await self._heard_out.wait()
        with trio.move_on_after(SEND_SECONDS):
            while not (self._heard_out.is_set() or self._has_words):
                self._work = trio.Event()
                await self._work.wait()

    async def _watch(self, stream: Stream, ends: list[str], scope: trio.CancelScope) -> None:
        """Notice the end of the stream; nothing that comes on it is an answer."""
        try:
            while await stream.receive_some(2**16):
                pass
            self._heard_out.set()
            self._work.set()
        except StreamError as error:
            ends.append(str(error))
            scope.cancel()

    async def _say(self, stream: Stream) -> None:
        while True:
            if not self._frames:
                await self._load()
            if self._frames:
                await self._send(stream, self._frames[0])
                self._frames.popleft()
                self._tries = 0
                self.used = trio.current_time()
            elif not self._has_words:
                self._work = trio.Event()
                with trio.move_on_after(LINGER_SECONDS) as waiting:
                    await self._work.wait()
                if waiting.cancelled_caught:
                    return

    async def _send(self, stream: Stream, frame: Sequence[bytes | memoryview]) -> None:
        self._tries += 1
        if self._tries > MAX_TRIES:  # this frame may be what the peer does not like
            return
        for whole in frame:
            for at in range(0, len(whole), PART_BYTES):
                part = whole[at : at + PART_BYTES]
                with trio.fail_after(SEND_SECONDS):
                    await stream.send_all(part)
                self._on_bytes(self.peer, len(part))

    async def _load(self) -> None:
        """Turn what is to be said next into frames."""
        if self._outbox:
            entries = tuple(self._outbox.values())[:MAX_ENTRIES]
            for entry in entries:
                del self._outbox[entry.wire]
            self._frames.append((encode(Message(entries)),))
        elif presences := self.ledger.next_presences():
            message = Message(presences=presences, pending=self.ledger.pending)
            self._frames.append((encode(message),))
        elif dues := self.ledger.next_blocks(BATCH_BYTES):
            frames, gone = await trio.to_thread.run_sync(self._read, dues, limiter=self._limiter)
            self._frames += frames
            self.ledger.gone(gone)

    def _read(self, dues: Sequence[Due]) -> tuple[list[tuple[bytes, memoryview]], list[Due]]:
        """The frames of some chunks, and the chunks that are not held any more; in a thread."""
        frames: list[tuple[bytes, memoryview]] = []
        gone: list[Due] = []
        for due in dues:
            try:
                data = self._store.get(due.cid)
            except (StorageError, OSError):
                gone.append(due)
            else:
                head = block_frame(due.wire, data, protocol=self._protocol)
                frames.append((head, memoryview(data)))
        return frames, gone
