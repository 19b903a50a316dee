"""Many streams on one Noise connection: yamux 1.0.0, quick, bounded, and never stuck.

py-libp2p's own yamux halves at 180 MB/s, drops a stream whose reader rests for 5 s, lets a window grow to 16 MB, blocks
without a word at 256 streams, and tells a lost connection as a clean end. This one speaks the same bytes:

- DATA frames fill a Noise message exactly (65,519 bytes); several messages leave in one write.
- A peer that writes beyond the window that it was given, or breaks the framing, loses the connection.
- One task reads, one writes; a caller that is cancelled in the middle of a write harms nobody.
- What can wait goes last and in turns (`swarm.limits`), a frame a writer.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

import trio

from protocols.transport import RemoteProtocolError, StreamError
from swarm.network.muxed_stream import LEAST_PART, MuxedStream
from swarm.network.wire import WireError
from swarm.network.yamux import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    HEADER,
    INITIAL_WINDOW,
    MAX_ID,
    MAX_PAYLOAD,
    MAX_PLAINTEXT,
    PING,
    RECEIVE_WINDOW,
    RST,
    SYN,
    WINDOW_UPDATE,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from swarm.limits.traffic import Traffic
    from swarm.network.secure import SecureChannel

MAX_UNREAD = 32 * 2**20
"""Bytes unread on all streams of a connection; the stream that goes over it is reset."""
MAX_INBOUND_STREAMS = 256
MAX_OUTBOUND_STREAMS = 256
"""Open streams that this side began; the next is refused with an error."""
MAX_QUEUED = 2**20
"""Bytes that wait for the socket before writers wait."""
MAX_CONTROL = 4096
"""Short frames that wait for the socket; a peer that makes us owe more and does not read loses the connection."""
WRITE_BYTES = 8 * MAX_PLAINTEXT
"""Bytes put into one write."""


class Room:
    """Writers that wait for room in a queue; who came first goes first, one frame each.

    Attributes:
        given: Writers that may go on and have not run since.
    """

    def __init__(self) -> None:
        self._waiting = trio.lowlevel.ParkingLot()
        self.given = 0

    def __len__(self) -> int:
        """Writers whose frames are not queued yet."""
        return len(self._waiting) + self.given

    async def wait(self) -> None:
        """Until there is room; the frame has to be queued, or the room given on, before anything else is awaited."""
        await self._waiting.park()
        self.given -= 1

    def give(self, frames: int) -> None:
        """Let as many writers go on."""
        frames = min(frames, len(self._waiting))
        if frames > 0:
            self.given += frames
            self._waiting.unpark(count=frames)


class Session:
    """The streams of one connection.

    Args:
        channel: The secured connection.
        peer: Who is on the other side.
        opener: This side dialled; it takes the odd numbers.
        on_stream: Called for each stream that the peer opens.
        traffic: Says when what can wait goes; None: at once, in the order in which it was written.

    Attributes:
        unread: Bytes that have arrived and wait for a reader.
        moved: Bytes of streams that have come and gone.
        closed: Set at the end, with its `reason`.
    """

    def __init__(
        self,
        channel: SecureChannel,
        peer: str,
        *,
        opener: bool,
        on_stream: Callable[[MuxedStream], None],
        traffic: Traffic | None = None,
    ) -> None:
        self.peer = peer
        self.traffic = traffic
        self.unread = 0
        self.moved = 0
        self.closed = trio.Event()
        self.reason = ""
        self._channel = channel
        self._on_stream = on_stream
        self._streams: dict[int, MuxedStream] = {}
        self._next = 1 if opener else 2
        self._parity_there = 0 if opener else 1
        self._outbound = 0
        self._inbound = 0
        self._control: deque[bytes] = deque()
        self._queue: deque[tuple[MuxedStream, bytes]] = deque()
        self._queued = 0
        self._patient: deque[tuple[MuxedStream, bytes]] = deque()
        self._patient_queued = 0
        self._work = trio.Event()
        self._place = None if traffic is None else traffic.going.place(self._wake)
        self._room = Room()
        self._patient_room = Room()
        self._pending = b""
        self._body_of: MuxedStream | None = None
        self._body_left = 0
        self._body_flags = 0

    @property
    def streams(self) -> list[MuxedStream]:
        """The open streams."""
        return list(self._streams.values())

    def is_full_for(self, stream: MuxedStream) -> bool:
        """Whether a writer should wait: as long as another does, or none would come to its turn."""
        if stream.can_wait:
            return self._patient_queued >= self._patience() or len(self._patient_room) > 0
        return self._queued >= MAX_QUEUED or len(self._room) > 0

    async def wait_for_room(self, stream: MuxedStream) -> bool:
        """Wait until there is room for one frame of this stream; who came first goes first.

        Returns:
            Whether the room is kept for it: what cannot use it now has given it on.
        """
        room = self._patient_room if stream.can_wait else self._room
        await room.wait()
        if not stream.can_take:
            room.give(1)
        return stream.can_take

    def part_for(self, stream: MuxedStream) -> int:
        """Bytes in one frame, so small that no other waits for long behind it."""
        if self.traffic is None or not stream.can_wait:
            return MAX_PAYLOAD
        return self.traffic.turn(LEAST_PART, MAX_PAYLOAD)

    def _patience(self) -> int:
        """Bytes of what can wait that are queued: what goes in two turns, or a question would wait long behind an answer."""
        if self.traffic is None:
            return MAX_QUEUED
        return min(MAX_QUEUED, 2 * self.traffic.turn(LEAST_PART, WRITE_BYTES))

    @property
    def window(self) -> int:
        """How far the peer may be ahead of the reader of a stream that can wait."""
        if self.traffic is None:
            return RECEIVE_WINDOW
        return self.traffic.window(INITIAL_WINDOW, RECEIVE_WINDOW)

    def open_stream(self) -> MuxedStream:
        """Begin a stream.

        Raises:
            StreamError: The connection is gone, or too many are open.
        """
        if self.closed.is_set():
            message = f"the connection is closed: {self.reason}"
            raise StreamError(message)
        if self._outbound >= MAX_OUTBOUND_STREAMS:
            message = f"{MAX_OUTBOUND_STREAMS} streams to this peer are already open"
            raise StreamError(message)
        if self._next > MAX_ID:
            message = "the connection has used up its stream numbers"
            raise StreamError(message)
        stream = MuxedStream(self, self._next, inbound=False)
        self._next += 2
        self._outbound += 1
        self._streams[stream.number] = stream
        self.send_data(stream, SYN, b"")
        return stream

    def forget(self, stream: MuxedStream, unread: int) -> None:
        """A stream is over in both directions, with that many bytes unread."""
        del self._streams[stream.number]
        self.unread -= unread
        if stream.inbound:
            self._inbound -= 1
        else:
            self._outbound -= 1

    def send_control(self, kind: int, flags: int, number: int, value: int) -> None:
        """Queue a short frame ahead of data."""
        if self.closed.is_set():
            return
        if len(self._control) >= MAX_CONTROL:
            self.close("the peer does not read")
            return
        self._control.append(HEADER.pack(0, kind, flags, number, value))
        self._work.set()

    def send_data(self, stream: MuxedStream, flags: int, data: bytes | memoryview) -> None:
        """Queue a frame of a stream, behind what it sent before."""
        if self.closed.is_set():
            return
        kind = DATA if data else WINDOW_UPDATE
        body = b"".join((HEADER.pack(0, kind, flags, stream.number, len(data)), data))
        # An end without data before it waits for nothing: a peer that opens and resets streams would heap such ends up.
        if stream.can_wait and (data or stream.waiting):
            self._patient.append((stream, body))
            self._patient_queued += len(body)
            stream.waiting += 1
        else:
            self._queue.append((stream, body))
            self._queued += len(body)
        stream.entered_queue()
        self.moved += len(data)
        self._work.set()

    def close(self, reason: str) -> None:
        """End the connection at once; every stream fails."""
        if self.closed.is_set():
            return
        self.reason = reason
        self.closed.set()
        why = f"the connection to {self.peer} is gone: {reason}"
        for stream in list(self._streams.values()):
            stream.detach()
            stream.fail(why)
        for finished, _ in (*self._queue, *self._patient):
            finished.fail(why)  # what it said last is lost
        self._queue.clear()
        self._patient.clear()
        self._control.clear()
        self._queued = self._patient_queued = 0
        self._work.set()
        self._room.give(len(self._room))
        self._patient_room.give(len(self._patient_room))
        self._channel.close_now()

    async def run(self) -> None:
        """Read and write until the connection ends; never raises but for cancellation."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write_all)
                try:
                    await self._read_all()
                    self.close("the peer closed the connection")
                except (WireError, StreamError) as error:
                    self.close(str(error))
                except Exception as error:  # noqa: BLE001 - whatever bytes a peer sends may end its connection only
                    self.close(f"{type(error).__name__}: {error}")
                nursery.cancel_scope.cancel()
        finally:
            self.close("this node closed the connection")
            self._leave()

    async def _write_all(self) -> None:
        while not self.closed.is_set():
            is_urgent = bool(self._control or self._queue)
            wait = self._wait() if self._patient and not is_urgent else math.inf
            if not is_urgent and wait:
                self._work = trio.Event()
                with trio.move_on_after(wait):
                    await self._work.wait()
                continue
            messages = self._gather()
            self._leave()
            if not messages:
                continue
            try:
                await self._channel.send_messages(messages)
            except WireError as error:
                self.close(str(error))

    def _wake(self) -> None:
        self._work.set()

    def _wait(self) -> float:
        """Seconds until what can wait may go; this connection stands in the line for it."""
        if self.traffic is None or self._place is None:
            return 0.0
        return self.traffic.wait(self._place)

    def _leave(self) -> None:
        """Let others go first: this connection is over, or writes, which may take long."""
        if self.traffic is not None and self._place is not None:
            self.traffic.going.leave(self._place)

    def _gather(self) -> list[bytes]:
        """Take up to `WRITE_BYTES` of frames, packed into Noise messages; what can wait comes last, in its turn."""
        messages: list[bytes] = []
        parts: list[bytes] = []
        size = total = 0
        patient = self._turn()
        while total < WRITE_BYTES:
            if self._control:
                frame = self._control.popleft()
            elif self._queue:
                frame = self._take(self._queue)
            elif self._patient and patient > 0:
                frame = self._take(self._patient)
                patient -= len(frame)
            else:
                break
            if size + len(frame) > MAX_PLAINTEXT:
                messages.append(b"".join(parts))
                parts.clear()
                size = 0
            if frame:
                parts.append(frame)
            size += len(frame)
            total += len(frame)
        if parts:
            messages.append(parts[0] if len(parts) == 1 else b"".join(parts))
        for room, free in (
            (self._room, MAX_QUEUED - self._queued),
            (self._patient_room, self._patience() - self._patient_queued),
        ):
            if free > 0:
                room.give(-(-free // MAX_PAYLOAD) - room.given)
        return messages

    def _turn(self) -> int:
        """Bytes of what can wait that go now."""
        if not self._patient or self.traffic is None or self._place is None or self._wait():
            return 0
        self.traffic.going.took(self._place)
        return self.traffic.turn(LEAST_PART, WRITE_BYTES)

    def _take(self, queue: deque[tuple[MuxedStream, bytes]]) -> bytes:
        """The next frame of a queue; empty where its stream was broken off."""
        stream, frame = queue.popleft()
        if queue is self._patient:
            self._patient_queued -= len(frame)
            stream.waiting -= 1
        else:
            self._queued -= len(frame)
        stream.left_queue()
        return b"" if stream.has_failed and frame[1] == DATA else frame

    async def _read_all(self) -> None:
        while not self.closed.is_set():
            for message in self._channel.messages():
                self._feed(message)
                if self.closed.is_set():
                    return
            if not await self._channel.receive():
                return

    def _feed(self, message: bytes) -> None:
        """Take the next plaintext; frames may be cut anywhere.

        Raises:
            RemoteProtocolError: It breaks the framing or a window.
        """
        data = memoryview(self._pending + message if self._pending else message)
        at = 0
        while not self.closed.is_set():
            if self._body_left:
                size = min(self._body_left, len(data) - at)
                if not size:
                    break
                self._body_left -= size
                if self._body_of is not None:
                    part = data[at : at + size]
                    # A part that is not copied keeps the whole message in memory.
                    self._deliver(self._body_of, part if 2 * size >= len(data) else bytes(part))
                    if not self._body_left:
                        self._flags(self._body_of, self._body_flags)
                at += size
            elif len(data) - at >= HEADER.size:
                self._frame(*HEADER.unpack_from(data, at))
                at += HEADER.size
            else:
                break
        self._pending = bytes(data[at:])

    def _frame(self, version: int, kind: int, flags: int, number: int, length: int) -> None:
        if version != 0 or kind > GO_AWAY:
            error = f"a frame of version {version} and kind {kind}"
            raise RemoteProtocolError(error)
        if kind == PING:
            if flags & SYN:
                self.send_control(PING, ACK, 0, length)
        elif kind == GO_AWAY:
            self.close("the peer said goodbye")
        elif kind == DATA and length > RECEIVE_WINDOW:
            error = f"a frame of {length:,} bytes"
            raise RemoteProtocolError(error)
        else:
            stream = self._stream_for(number, flags)
            if kind == DATA and length:
                self._body_of, self._body_left, self._body_flags = stream, length, flags
            elif stream is not None:
                if length:
                    stream.credited(length)
                self._flags(stream, flags)

    def _deliver(self, stream: MuxedStream, data: bytes | memoryview) -> None:
        self.moved += len(data)
        if self.traffic is not None and not stream.can_wait:
            self.traffic.came(len(data))
        stream.arrived(data)
        if self.unread > MAX_UNREAD:
            stream.break_off(f"more than {MAX_UNREAD:,} bytes unread")

    def _stream_for(self, number: int, flags: int) -> MuxedStream | None:
        stream = self._streams.get(number)
        if not flags & SYN:
            return stream
        if stream is not None or number % 2 != self._parity_there or number == 0:
            error = f"stream {number} cannot be opened by the peer"
            raise RemoteProtocolError(error)
        if self._inbound >= MAX_INBOUND_STREAMS:
            self.send_control(WINDOW_UPDATE, RST, number, 0)
            return None
        stream = MuxedStream(self, number, inbound=True)
        self._inbound += 1
        self._streams[number] = stream
        self.send_control(WINDOW_UPDATE, ACK, number, 0)
        self._on_stream(stream)
        return stream

    @staticmethod
    def _flags(stream: MuxedStream, flags: int) -> None:
        if flags & RST:
            stream.detach()
            stream.fail("the peer reset the stream")
        elif flags & FIN:
            stream.ended()
