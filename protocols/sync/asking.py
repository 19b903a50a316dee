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


class Encodable(Protocol):
    """A request, a block or a finalization."""

    def encode(self) -> bytes:
        """Its canonical bytes."""


@asynccontextmanager
async def ask(
    transport: Transport, peer: PeerId, protocol: str, request: Encodable, max_frame: int
) -> AsyncIterator[FrameReader]:
    """Open a stream, send one request, read the answer inside; the stream ends with the block."""
    with trio.fail_after(ANSWER_SECONDS):
        stream = await transport.open_stream(peer, protocol)
    try:
        with trio.fail_after(ANSWER_SECONDS):
            await stream.send_all(frame(request.encode()))
            await stream.close()
        yield FrameReader(stream, max_frame)
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
    async with ask(transport, peer, protocol, request, max_frame) as reader:
        with trio.fail_after(seconds):
            data = await reader.read()
    if data is None:
        message = "the peer closed without an answer"
        raise StreamError(message)
    return data


async def send(stream: Stream, body: bytes) -> None:
    """Send one frame of an answer."""
    with trio.fail_after(FRAME_SECONDS):
        await stream.send_all(frame(body))
