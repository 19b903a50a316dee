"""The streams on which peers ask: so many at once, and so many of one peer."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import trio

from protocols.framing import FrameReader
from protocols.transport import RemoteProtocolError, StreamError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from protocols.transport import PeerId, Stream


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
