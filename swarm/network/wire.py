"""A TCP socket as libp2p's Noise wants it: buffered reads, counted bytes, and a close that never waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from libp2p.abc import IRawConnection
from libp2p.connection_types import ConnectionType

from swarm.network import addresses

if TYPE_CHECKING:
    from multiaddr import Multiaddr  # type: ignore[import-untyped]  # ships no types

READ_BYTES = 2**18


class WireError(Exception):
    """The socket is closed or broken, or ended in the middle of something."""


class Wire(IRawConnection):
    """One TCP connection.

    Args:
        stream: The socket.
        is_initiator: This side dialled.
    """

    def __init__(self, stream: trio.SocketStream, *, is_initiator: bool) -> None:
        self._stream = stream
        self.is_initiator = is_initiator
        host, port = stream.socket.getpeername()[:2]
        self.remote = addresses.of_socket(host, port)
        self._buffer = b""
        self._at = 0
        self.bytes_in = 0
        self.bytes_out = 0

    async def receive_some(self, max_bytes: int) -> bytes:
        """At least one byte; `b""` at the end."""
        if self._at == len(self._buffer):
            await self._fill()
        data = self._buffer[self._at : self._at + max_bytes]
        self._at += len(data)
        return data

    async def read_exactly(self, count: int) -> bytes:
        """That many bytes, in few system calls.

        Raises:
            WireError: The socket ended before.
        """
        parts: list[bytes] = []
        missing = count
        while True:
            part = self._buffer[self._at : self._at + missing]
            self._at += len(part)
            missing -= len(part)
            if not missing:
                return part if not parts else b"".join((*parts, part))
            parts.append(part)
            await self._fill()
            if not self._buffer:
                message = "the connection ended"
                raise WireError(message)

    async def _fill(self) -> None:
        try:
            self._buffer = await self._stream.receive_some(READ_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            self._buffer = b""
            self._at = 0
            message = f"the connection is gone: {str(error) or type(error).__name__}"
            raise WireError(message) from error
        self._at = 0
        self.bytes_in += len(self._buffer)

    async def send_all(self, data: bytes) -> None:
        """Write everything; a write that is cancelled leaves the connection of no use."""
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            message = f"the connection is gone: {str(error) or type(error).__name__}"
            raise WireError(message) from error
        self.bytes_out += len(data)

    def close_now(self) -> None:
        """Release the socket at once."""
        self._stream.socket.close()

    async def read(self, n: int | None = None) -> bytes:
        """For libp2p: at most n bytes, `b""` at the end."""
        return await self.receive_some(READ_BYTES if n is None else n)

    async def write(self, data: bytes) -> None:
        """For libp2p: `send_all`."""
        await self.send_all(data)

    async def close(self) -> None:
        """For libp2p: `close_now`."""
        self.close_now()
        await trio.lowlevel.checkpoint()

    def get_remote_address(self) -> tuple[str, int] | None:
        """For libp2p: host and port of the other side."""
        return self.remote.host, self.remote.port

    def get_transport_addresses(self) -> list[Multiaddr]:
        """For libp2p: unused here."""
        return []

    def get_connection_type(self) -> ConnectionType:
        """For libp2p: direct."""
        return ConnectionType.DIRECT
