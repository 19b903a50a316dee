"""A TCP socket: reads into one buffer, counted bytes, a close that never waits, and what libp2p's Noise wants of it."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

import trio
from libp2p.abc import IRawConnection
from libp2p.connection_types import ConnectionType

from swarm.network import addresses

if TYPE_CHECKING:
    from multiaddr import Multiaddr  # type: ignore[import-untyped]  # ships no types

    from swarm.limits.traffic import Traffic

READ_BYTES = 2**18
"""Taken from the socket at a time."""
BUFFER_BYTES = READ_BYTES + 2**16
"""What a read brings, behind a Noise message that has begun."""


class WireError(Exception):
    """The socket is closed or broken, or ended in the middle of something."""


class Wire(IRawConnection):
    """One TCP connection.

    Args:
        stream: The socket.
        is_initiator: This side dialled.
        traffic: Counts what goes to other machines and comes from them; None: nobody does.

    Attributes:
        traffic: The same; None also where the other side is this machine.
    """

    def __init__(
        self, stream: trio.SocketStream, *, is_initiator: bool, traffic: Traffic | None = None
    ) -> None:
        self._stream = stream
        self.is_initiator = is_initiator
        host, port = stream.socket.getpeername()[:2]
        self.remote = addresses.of_socket(host, port)
        here = stream.socket.getsockname()[0]
        is_counted = traffic is not None and traffic.applies(here, host)
        self.traffic = traffic if is_counted else None
        # Pages that no read has reached yet take no memory: a quiet connection costs one of them.
        pages = mmap.mmap(-1, BUFFER_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._buffer = memoryview(pages)
        self._start = self._end = 0
        self.bytes_in = 0
        self.bytes_out = 0

    @property
    def arrived(self) -> memoryview:
        """What was read and not taken; good until the next `more`."""
        return self._buffer[self._start : self._end]

    def take(self, count: int) -> None:
        """So many of the bytes that have arrived are done with."""
        self._start += count

    async def more(self) -> bool:
        """Read on, behind what has arrived; false at the end.

        Raises:
            WireError: The connection is gone.
        """
        if self._start == self._end:
            self._start = self._end = 0
        elif self._end > BUFFER_BYTES - READ_BYTES:
            left = self._end - self._start
            self._buffer[:left] = self._buffer[self._start : self._end]
            self._start, self._end = 0, left
        try:
            # Without the stream around it, which has no way to read into a buffer.
            count = await self._stream.socket.recv_into(self._buffer[self._end :])
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            message = f"the connection is gone: {str(error) or type(error).__name__}"
            raise WireError(message) from error
        self._end += count
        self.bytes_in += count
        if self.traffic is not None:
            self.traffic.received(count)
        return count > 0

    async def receive_some(self, max_bytes: int) -> bytes:
        """At least one byte; `b""` at the end."""
        if self._start == self._end and not await self.more():
            return b""
        data = bytes(self.arrived[:max_bytes])
        self.take(len(data))
        return data

    async def send_all(self, data: bytes | memoryview) -> None:
        """Write everything; a write that is cancelled leaves the connection of no use."""
        traffic = self.traffic
        if traffic is not None:
            traffic.begins(len(data))
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            message = f"the connection is gone: {str(error) or type(error).__name__}"
            raise WireError(message) from error
        finally:
            if traffic is not None:
                traffic.sent(len(data))
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
