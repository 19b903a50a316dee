"""The streams on which this node asks: one a provider, shared by all fetches, kept open."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

import structlog
import trio

from protocols.exchange.lines import Asking
from protocols.exchange.messages import (
    ANSWERS,
    PROTOCOL,
    Answer,
    Block,
    Cancel,
    Decoder,
    DontHave,
    Query,
    Want,
    encode,
    encode_all,
)
from protocols.transport import RemoteProtocolError, StreamError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from protocols.transport import PeerId, Stream, Transport
    from storage.cid import Cid

OPEN_SECONDS = 10.0
"""To dial a provider and open the stream."""
SEND_SECONDS = 60.0
"""A peer that takes none of our bytes for this long is given up."""
IDLE_SECONDS = 300.0
"""A stream that nobody uses is closed."""
READ_BYTES = 2**18

_log = structlog.get_logger("swarm.exchange")


class Sink(Protocol):
    """Who wants chunks from a session; called in the session's task, must not raise."""

    def heard(self, peer: PeerId, count: int) -> None:
        """Bytes came, of whatever message."""

    def block(self, peer: PeerId, cid: Cid, data: bytes) -> None:
        """A chunk came; not checked."""

    def lacks(self, peer: PeerId, cid: Cid) -> None:
        """The provider does not have it, or it was cancelled."""

    def lost(self, peer: PeerId, why: str) -> None:
        """The stream is gone and every want on it."""


class Session:
    """One stream to one provider."""

    def __init__(
        self, peer: PeerId, stream: Stream, on_bytes: Callable[[PeerId, int], None]
    ) -> None:
        self.peer = peer
        self.closed = trio.Event()
        self.why = ""
        self.is_broken_by_peer = False
        self._stream = stream
        self._on_bytes = on_bytes
        self._asking = Asking()
        self._users: dict[Sink, None] = {}
        self._sinks: dict[Cid, dict[Sink, None]] = {}
        self._cancelled: dict[Cid, dict[Sink, None]] = {}
        self._queries: deque[tuple[trio.Event, list[Cid]]] = deque()
        self._outbox = bytearray()
        self._changed = trio.Event()
        self._scope = trio.CancelScope()

    @property
    def room(self) -> int:
        """Wants that can still be sent."""
        return self._asking.room

    @property
    def can_query(self) -> bool:
        """Whether another query can be sent."""
        return self._asking.can_query

    @property
    def is_idle(self) -> bool:
        """Whether nobody uses it and nothing is owed."""
        return not self._users and not self._asking.is_owed

    def attach(self, sink: Sink) -> None:
        """Tell a sink what happens from now on."""
        self._users[sink] = None

    def detach(self, sink: Sink) -> None:
        """Forget a sink; what only it wanted is cancelled."""
        self._users.pop(sink, None)
        self.cancel(sink, [cid for cid, sinks in self._sinks.items() if sink in sinks])

    def want(self, sink: Sink, wanted: Iterable[Cid]) -> list[Cid]:
        """Ask for chunks.

        Returns:
            Those that there was no room for.
        """
        new: list[Cid] = []
        refused: list[Cid] = []
        for cid in wanted:
            if self._asking.is_wanted(cid):
                self._sinks[cid][sink] = None
            elif self.room > len(new):
                self._sinks[cid] = {sink: None}
                new.append(cid)
            else:
                refused.append(cid)
        self._asking.want(new)
        self._post(encode_all(Want, new))
        return refused

    def cancel(self, sink: Sink, unwanted: Iterable[Cid]) -> None:
        """A sink no longer wants these; the provider hears of it if nobody else does."""
        dropped = []
        for cid in unwanted:
            sinks = self._sinks.get(cid)
            if sinks is not None and sink in sinks:
                del sinks[sink]
                self._cancelled.setdefault(cid, {})[sink] = None
                if not sinks:
                    dropped.append(cid)
        self._post(encode_all(Cancel, dropped))

    async def query(self, asked: tuple[Cid, ...]) -> list[Cid]:
        """Ask which of these are held.

        Raises:
            StreamError: The stream was lost before the answer.
        """
        answered = trio.Event()
        held: list[Cid] = []
        self._queries.append((answered, held))
        self._asking.query(asked)
        self._post(encode(Query(asked)))
        await answered.wait()
        if self.closed.is_set():
            raise StreamError(self.why)
        return held

    async def run(self) -> None:
        """Read and write until the stream ends or `stop`."""
        try:
            async with trio.open_nursery() as nursery:
                self._scope = nursery.cancel_scope
                nursery.start_soon(self._write)
                nursery.start_soon(self._read)
                nursery.start_soon(self._close_when_idle)
        finally:
            self._end()
            with trio.CancelScope(shield=True), trio.move_on_after(1):
                await self._stream.reset()

    def stop(self, why: str) -> None:
        """End it."""
        self.why = self.why or why
        self._end()
        self._scope.cancel()

    def _end(self) -> None:
        if self.closed.is_set():
            return
        self.why = self.why or "the node is stopping"
        self.closed.set()
        for answered, _ in self._queries:
            answered.set()
        for sink in list(self._users):
            sink.lost(self.peer, self.why)

    def _post(self, data: bytes) -> None:
        if data:
            self._outbox += data
            self._changed.set()

    async def _write(self) -> None:
        try:
            while True:
                await self._changed.wait()
                self._changed = trio.Event()
                data = bytes(self._outbox)
                self._outbox.clear()
                with trio.fail_after(SEND_SECONDS):
                    await self._stream.send_all(data)
        except (StreamError, trio.TooSlowError) as error:
            self.stop(str(error) or f"it took nothing for {SEND_SECONDS:.0f} s")

    async def _read(self) -> None:
        decoder = Decoder(ANSWERS, blocks=True)
        try:
            while data := await self._stream.receive_some(READ_BYTES):
                self._on_bytes(self.peer, len(data))
                for sink in self._users:
                    sink.heard(self.peer, len(data))
                for message in decoder.feed(data):
                    self._dispatch(message)  # type: ignore[arg-type]  # this decoder gives answers only
            self.stop("it closed the stream")
        except RemoteProtocolError as error:
            self.is_broken_by_peer = True
            self.stop(str(error))
        except StreamError as error:
            self.stop(str(error))

    def _dispatch(self, answer: Answer) -> None:
        self._asking.answered(answer)
        if isinstance(answer, Block):
            for sink in self._sinks.pop(answer.cid) | self._cancelled.pop(answer.cid, {}):
                sink.block(self.peer, answer.cid, answer.data)
        elif isinstance(answer, DontHave):
            for cid in answer.cids:
                self._lacked(cid)
        else:
            answered, held = self._queries.popleft()
            held.extend(answer.cids)
            answered.set()

    def _lacked(self, cid: Cid) -> None:
        sinks, cancellers = self._sinks.pop(cid), self._cancelled.pop(cid, None)
        for sink in sinks if cancellers is None else cancellers:
            sink.lacks(self.peer, cid)
        if cancellers is not None and sinks:  # cancelled by one, and wanted by another since
            self._sinks[cid] = sinks
            self._asking.want((cid,))
            self._post(encode(Want((cid,))))

    async def _close_when_idle(self) -> None:
        idle = 0
        while idle < 2:
            await trio.sleep(IDLE_SECONDS / 2)
            idle = idle + 1 if self.is_idle else 0
        self.stop("nobody used it")


class Sessions:
    """The open sessions, one a provider."""

    def __init__(
        self,
        transport: Transport,
        on_bytes: Callable[[PeerId, int], None],
        on_broken: Callable[[PeerId, str], None],
    ) -> None:
        self._transport = transport
        self._on_bytes = on_bytes
        self._on_broken = on_broken
        self._open: dict[PeerId, Session] = {}
        self._opening: dict[PeerId, trio.Lock] = {}

    async def get(self, peer: PeerId, nursery: trio.Nursery) -> Session:
        """The session with a peer, opened if need be and run in the nursery.

        Raises:
            UnreachableError: The peer cannot be dialled within `OPEN_SECONDS`, or does not exchange.
        """
        lock = self._opening.setdefault(peer, trio.Lock())
        try:
            async with lock:
                session = self._open.get(peer)
                if session is not None and not session.closed.is_set():
                    return session
                try:
                    with trio.fail_after(OPEN_SECONDS):
                        stream = await self._transport.open_stream(peer, PROTOCOL)
                except trio.TooSlowError as error:
                    why = f"no stream within {OPEN_SECONDS:.0f} s"
                    raise UnreachableError(peer, why) from error
                except StreamError as error:
                    raise UnreachableError(peer, str(error)) from error
                session = self._open[peer] = Session(peer, stream, self._on_bytes)
                nursery.start_soon(self._run, session)
                return session
        finally:
            if not lock.statistics().tasks_waiting and not lock.locked():
                self._opening.pop(peer, None)

    async def _run(self, session: Session) -> None:
        try:
            await session.run()
        except Exception as error:  # noqa: BLE001 - what fails with one peer ends its stream, and no more
            _log.warning("exchange.session_failed", peer=session.peer, error=repr(error))
        finally:
            if self._open.get(session.peer) is session:
                del self._open[session.peer]
            if session.is_broken_by_peer:
                self._on_broken(session.peer, session.why)
