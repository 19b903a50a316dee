"""Length-prefixed frames on a stream: u32 big endian, then that many bytes.

Our own loop: libp2p's `read_exactly` fails above about 6.6 MB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocols.transport import RemoteProtocolError, StreamError

if TYPE_CHECKING:
    from protocols.transport import Stream

READ_BYTES = 2**18


class FrameReader:
    """Cuts frames from a stream; refuses a length before it allocates for it.

    Args:
        stream: Where the bytes come from.
        max_bytes: The longest frame that the protocol allows.
        begun: What was read of it already.
    """

    def __init__(self, stream: Stream, max_bytes: int, begun: bytes = b"") -> None:
        self._stream = stream
        self._max_bytes = max_bytes
        self._buffer = bytearray(begun)

    async def read(self) -> bytes | None:
        """The next frame; None when the peer finished between two frames.

        Raises:
            RemoteProtocolError: The frame is longer than allowed.
            StreamError: The stream ended inside a frame, or was reset.
        """
        if not await self._fill(4):
            return None
        length = int.from_bytes(self._buffer[:4], "big")
        if length > self._max_bytes:
            message = f"a frame of {length:,} bytes where at most {self._max_bytes:,} are allowed"
            raise RemoteProtocolError(message)
        if not await self._fill(4 + length):
            message = "the stream ended inside a frame"
            raise StreamError(message)
        frame = bytes(memoryview(self._buffer)[4 : 4 + length])
        del self._buffer[: 4 + length]
        return frame

    async def _fill(self, count: int) -> bool:
        while len(self._buffer) < count:
            data = await self._stream.receive_some(READ_BYTES)
            if not data:
                if self._buffer:
                    message = "the stream ended inside a frame"
                    raise StreamError(message)
                return False
            self._buffer += data
        return True


def frame(body: bytes) -> bytes:
    """One frame's bytes."""
    return len(body).to_bytes(4, "big") + body
