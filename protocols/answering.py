"""The streams on which peers ask: so many at once, and so many of one peer; and the least pace at which an answer is taken."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import trio

from protocols.framing import FrameReader
from protocols.transport import RemoteProtocolError, StreamError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from protocols.transport import PeerId, Stream

LEAST_RATE: Final = 16 * 2**10
"""Bytes a second at which an answer is taken at least: a quarter of a line of 64 KiB a second, which may carry several."""
LAG_SECONDS: Final = 60.0
"""For so long an answer may stop, or lag behind that rate."""


class Answering:
    """Who is answered now.

    A stream on which nothing was asked yet gives way to one that comes: who only opens streams keeps nobody out.

    Args:
        streams: At once.
        per_peer: Of these.
        max_request: Bytes of the longest request.
        seconds: In which a peer that opened a stream has asked.
    """

    def __init__(self, streams: int, per_peer: int, max_request: int, seconds: float) -> None:
        self._streams = streams
        self._per_peer = per_peer
        self._max_request = max_request
        self._seconds = seconds
        self._of: Counter[PeerId] = Counter()
        self._silent: dict[trio.CancelScope, None] = {}

    async def serve(
        self, stream: Stream, answer: Callable[[Stream, bytes], Awaitable[None]]
    ) -> None:
        """One stream, from its request to its end; where others have every place it is reset.

        Raises:
            RemoteProtocolError: The peer has too many streams, or asks what is not allowed.
            StreamError: The stream was lost, or had to give way.
            trio.TooSlowError: The peer does not ask, or takes no answer.
        """
        if self._of[stream.peer] >= self._per_peer:
            message = f"more than {self._per_peer} streams at once"
            raise RemoteProtocolError(message)
        if self._of.total() >= self._streams and not self._make_room():
            await stream.reset()  # no fault of this peer
            return
        self._of[stream.peer] += 1
        try:
            request = await self._request(stream)
            if request is not None:
                await answer(stream, request)
            await stream.close()
        finally:
            self._of[stream.peer] -= 1
            if not self._of[stream.peer]:
                del self._of[stream.peer]

    async def _request(self, stream: Stream) -> bytes | None:
        with trio.CancelScope() as scope:
            self._silent[scope] = None
            try:
                with trio.fail_after(self._seconds):
                    return await FrameReader(stream, self._max_request).read()
            finally:
                del self._silent[scope]
        message = "it gave way, for nothing was asked on it"
        raise StreamError(message)

    def _make_room(self) -> bool:
        """End the stream that has been silent the longest; false where something was asked on each."""
        for scope in self._silent:
            if not scope.cancel_called:
                scope.cancel()
                return True
        return False


class Paced:
    """A stream of which the peer takes what it asked for, or loses its place; implements `protocols.transport.Stream`.

    What it takes earns the time for what follows; what the answerer does between two pieces costs none.

    Args:
        stream: The one that it speaks for.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._left = LAG_SECONDS

    @property
    def peer(self) -> PeerId:
        """See `protocols.transport.Stream`."""
        return self._stream.peer

    async def receive_some(self, max_bytes: int = 2**18) -> bytes:
        """See `protocols.transport.Stream`."""
        return await self._stream.receive_some(max_bytes)

    async def send_all(self, data: bytes | memoryview) -> None:
        """See `protocols.transport.Stream`.

        Raises:
            trio.TooSlowError: The answer lags `LAG_SECONDS` behind `LEAST_RATE`.
        """
        began = trio.current_time()
        with trio.fail_after(self._left + len(data) / LEAST_RATE):
            await self._stream.send_all(data)
        left = self._left + len(data) / LEAST_RATE - (trio.current_time() - began)
        self._left = max(0.0, min(LAG_SECONDS, left))

    async def close(self) -> None:
        """See `protocols.transport.Stream`."""
        await self._stream.close()

    async def reset(self) -> None:
        """See `protocols.transport.Stream`."""
        await self._stream.reset()
