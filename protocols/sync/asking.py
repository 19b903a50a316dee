"""One request on one stream, and the frames that answer it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Protocol

import trio

from protocols.framing import FrameReader, frame
from protocols.transport import StreamError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from protocols.transport import PeerId, Stream, Transport

ANSWER_SECONDS: Final = 10.0
FRAME_SECONDS: Final = 30.0
"""For one frame; and for so long an answer in all may lag behind the pace of `BLOCK_SECONDS` and `SLOW_BYTES`."""
BLOCK_SECONDS: Final = 0.1
"""For each frame of an answer that came."""
SLOW_BYTES: Final = 64 * 2**10
"""And one second for so many bytes."""


class Encodable(Protocol):
    """A request, a block or a finalization."""

    def encode(self) -> bytes:
        """Its canonical bytes."""


class Answer:
    """The frames of an answer, which may not stop nor be dripped.

    What came earns the time for what comes next; what the reader does between two frames costs none.

    Args:
        reader: Gives them.
    """

    def __init__(self, reader: FrameReader) -> None:
        self._reader = reader
        self._left = FRAME_SECONDS

    async def read(self) -> bytes | None:
        """The next frame; None when the peer finished.

        Raises:
            trio.TooSlowError: It took more than `FRAME_SECONDS`, or the whole answer is too slow.
            StreamError, RemoteProtocolError: As of every frame.
        """
        began = trio.current_time()
        with trio.fail_after(self._left):
            data = await self._reader.read()
        earned = BLOCK_SECONDS + (0 if data is None else len(data) / SLOW_BYTES)
        left = self._left + earned - (trio.current_time() - began)
        self._left = min(FRAME_SECONDS, max(0.0, left))
        return data


@asynccontextmanager
async def ask(
    transport: Transport, peer: PeerId, protocol: str, request: Encodable, max_frame: int
) -> AsyncIterator[Answer]:
    """Open a stream, send one request, read the answer inside; the stream ends with the block."""
    with trio.fail_after(ANSWER_SECONDS):
        stream = await transport.open_stream(peer, protocol)
    try:
        with trio.fail_after(ANSWER_SECONDS):
            await stream.send_all(frame(request.encode()))
            await stream.close()
        yield Answer(FrameReader(stream, max_frame))
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
            await stream.reset()


async def ask_one(
    transport: Transport,
    peer: PeerId,
    protocol: str,
    request: Encodable,
    max_frame: int,
    seconds: float = ANSWER_SECONDS,
) -> bytes:
    """The one frame that answers a request.

    Raises:
        UnreachableError, StreamError, RemoteProtocolError, trio.TooSlowError: No answer, or a bad one.
    """
    async with ask(transport, peer, protocol, request, max_frame) as answer:
        with trio.fail_after(seconds):
            data = await answer.read()
    if data is None:
        message = "the peer closed without an answer"
        raise StreamError(message)
    return data


async def send(stream: Stream, body: bytes) -> None:
    """Send one frame of an answer."""
    with trio.fail_after(FRAME_SECONDS):
        await stream.send_all(frame(body))
