"""One stream of a connection: what has arrived and waits for a reader, and what the peer may still be sent.

The window starts at 256 KiB and is given back in quarters, up to 4 MiB; a writer waits for it without polling.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import trio

from protocols.transport import RemoteProtocolError, StreamError
from swarm.network.yamux import FIN, INITIAL_WINDOW, MAX_ID, RECEIVE_WINDOW, RST, WINDOW_UPDATE

if TYPE_CHECKING:
    from swarm.limits.traffic import Traffic
    from swarm.limits.turns import Place
    from swarm.network.muxer import Session

JOIN_BYTES = 4096
"""Shorter pieces that wait for a reader are joined, so that frames of one byte cost no more memory than their bytes."""
LEAST_PART = 4096
"""Bytes of what can wait that go or are taken in one turn, however low the rate is."""


class MuxedStream:
    """One stream; implements `protocols.transport.Stream`.

    Attributes:
        waiting: Its frames among those that can wait.
    """

    def __init__(self, session: Session, number: int, *, inbound: bool) -> None:
        self.session = session
        self.number = number
        self.inbound = inbound
        self.protocol = ""
        self._chunks: deque[bytes | memoryview] = deque()
        self._unread = 0
        self._granted = INITIAL_WINDOW
        self._owed = 0
        self._window = INITIAL_WINDOW
        self._finished_here = False
        self._finished_there = False
        self._failure: str | None = None
        self._detached = False
        self._in_queue = 0
        self.waiting = 0
        self._flushed = trio.Event()
        self._readable = trio.Event()
        self._writable = trio.Event()
        self._turned = trio.Event()
        self._place = None if session.traffic is None else session.traffic.coming.place(self._turn)

    @property
    def peer(self) -> str:
        """Who is on the other side."""
        return self.session.peer

    @property
    def can_wait(self) -> bool:
        """What it says goes behind what others say, and at the rate that a person allows."""
        traffic = self.session.traffic
        return traffic is not None and traffic.can_wait(self.protocol)

    @property
    def is_over(self) -> bool:
        """Both directions are finished, or the stream was reset."""
        return self._failure is not None or (self._finished_here and self._finished_there)

    async def receive_some(self, max_bytes: int = 2**18) -> bytes:
        """See `protocols.transport.Stream`."""
        await trio.lowlevel.checkpoint()
        while not self._chunks:
            if self._finished_there:
                return b""
            if self._failure is not None:
                raise StreamError(self._failure)
            if self._readable.is_set():
                self._readable = trio.Event()
            await self._readable.wait()
        traffic = self.session.traffic if self.can_wait else None
        if traffic is None or self._place is None:
            data = self._take_arrived(max_bytes)
        else:
            await self._wait_for_turn(traffic, self._place)
            part = traffic.part(min(max_bytes, LEAST_PART), max_bytes)
            data = self._take_arrived(part)
            traffic.came(len(data))
            traffic.coming.took(self._place)
        self._consumed(len(data))
        return data

    async def _wait_for_turn(self, traffic: Traffic, place: Place) -> None:
        """Wait until this reader may take what has arrived.

        Raises:
            StreamError: It was given up meanwhile.
        """
        try:
            while self._chunks and (wait := traffic.reading_wait(place)):
                self._turned = trio.Event()
                with trio.move_on_after(wait):
                    await self._turned.wait()
        finally:
            traffic.coming.leave(place)
        if not self._chunks:
            raise StreamError(self._failure or "the stream was read elsewhere")

    def _turn(self) -> None:
        self._turned.set()

    def _take_arrived(self, max_bytes: int) -> bytes:
        """What has arrived, up to so many bytes."""
        data = self._chunks.popleft()
        if len(data) > max_bytes:
            self._chunks.appendleft(data[max_bytes:])
            data = data[:max_bytes]
        elif len(data) < max_bytes and self._chunks:
            parts = [data]
            room = max_bytes - len(data)
            while self._chunks and len(self._chunks[0]) <= room:
                part = self._chunks.popleft()
                parts.append(part)
                room -= len(part)
            data = b"".join(parts)
        return bytes(data)

    def _consumed(self, count: int) -> None:
        self._unread -= count
        if self._detached:
            return
        self.session.unread -= count
        self._owed += count
        if self._finished_there:
            return
        # What the peer may send is brought back to the full window once a quarter of it is free.
        most = self.session.window if self.can_wait else RECEIVE_WINDOW
        if self._owed >= most // 4 or self._granted <= INITIAL_WINDOW // 2:
            increment = most - self._granted - self._unread
            if increment > 0:
                self._granted += increment
                self._owed = 0
                self.session.send_control(WINDOW_UPDATE, 0, self.number, increment)

    async def send_all(self, data: bytes | memoryview) -> None:
        """See `protocols.transport.Stream`."""
        await trio.lowlevel.checkpoint()
        view = memoryview(data).cast("B") if len(data) else memoryview(b"")
        at = 0
        has_room = False
        while at < len(view):
            self._check_writable()
            if self._window == 0:
                if self._writable.is_set():  # or another writer waits for the one that is there
                    self._writable = trio.Event()
                await self._writable.wait()
                continue
            if not has_room and self.session.is_full_for(self):
                has_room = await self.session.wait_for_room(self)
                continue
            has_room = False
            size = min(self._window, self.session.part_for(self), len(view) - at)
            self._window -= size
            self.session.send_data(self, 0, view[at : at + size])
            at += size

    @property
    def has_failed(self) -> bool:
        """Whether it was broken off, by either side."""
        return self._failure is not None

    @property
    def is_writable(self) -> bool:
        """Whether more can be said on it."""
        return self._failure is None and not self._finished_here

    @property
    def can_take(self) -> bool:
        """Whether more can be said on it now: another writer may have used up its window."""
        return self.is_writable and self._window > 0

    def _check_writable(self) -> None:
        if self._failure is not None:
            raise StreamError(self._failure)
        if not self.is_writable:
            message = "the stream is closed for writing"
            raise StreamError(message)

    async def close(self) -> None:
        """See `protocols.transport.Stream`."""
        self.finish()
        await trio.lowlevel.checkpoint()

    def finish(self) -> None:
        """`close` without a checkpoint."""
        if self._finished_here or self._failure is not None:
            return
        self._finished_here = True
        self.session.send_data(self, FIN, b"")
        if self._finished_there:
            self.detach()

    async def flushed(self) -> None:
        """Wait until what was written is with the socket."""
        while self._in_queue and self._failure is None:
            if self._flushed.is_set():
                self._flushed = trio.Event()
            await self._flushed.wait()

    def left_queue(self) -> None:
        """One frame less waits for the socket."""
        self._in_queue -= 1
        if not self._in_queue:
            self._flushed.set()

    def entered_queue(self) -> None:
        """One frame more waits for the socket."""
        self._in_queue += 1

    async def reset(self) -> None:
        """See `protocols.transport.Stream`."""
        self.break_off("the stream was reset here")
        await trio.lowlevel.cancel_shielded_checkpoint()

    def break_off(self, why: str) -> None:
        """`reset` without a checkpoint."""
        if not self._detached:
            self.session.send_data(self, RST, b"")
        self.detach()
        self._chunks.clear()
        self._unread = 0
        self._finished_there = False
        self.fail(why)

    def fail(self, why: str) -> None:
        """The stream is of no more use; what has arrived can still be read."""
        if self._failure is None:
            self._failure = why
        self._readable.set()
        self._writable.set()
        self._turned.set()
        self._flushed.set()

    def detach(self) -> None:
        """The session no longer counts this stream; what has arrived can still be read."""
        if not self._detached:
            self._detached = True
            self.session.forget(self, self._unread)

    def arrived(self, data: bytes | memoryview) -> None:
        """Bytes from the peer.

        Raises:
            RemoteProtocolError: More than it was allowed, or after its end.
        """
        if self._failure is not None:
            return
        if self._finished_there:
            message = "data after the end of a stream"
            raise RemoteProtocolError(message)
        self._granted -= len(data)
        if self._granted < 0:
            message = f"{-self._granted:,} bytes beyond the window of a stream"
            raise RemoteProtocolError(message)
        if len(data) < JOIN_BYTES and self._chunks and len(self._chunks[-1]) < JOIN_BYTES:
            self._chunks[-1] = b"".join((self._chunks[-1], data))
        else:
            self._chunks.append(data)
        self._unread += len(data)
        self.session.unread += len(data)
        self._readable.set()

    def credited(self, count: int) -> None:
        """The peer allows that many bytes more."""
        self._window = min(self._window + count, MAX_ID)
        self._writable.set()

    def ended(self) -> None:
        """The peer has finished writing; after a failure that is no end."""
        if self._failure is not None:
            return
        self._finished_there = True
        self._readable.set()
        if self._finished_here:
            self.detach()
