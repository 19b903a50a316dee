"""How this node reaches an address: by a socket, from the port that it listens on where a router likes that, or by a relay."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

import structlog
import trio

from protocols.transport import RemoteProtocolError, UnreachableError
from swarm.network import addresses
from swarm.network.wire import Wire, WireError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from swarm.limits.traffic import Traffic
    from swarm.network.addresses import Address
    from swarm.network.link import Link

DIAL_S = 5.0
"""For one address: TCP, Noise and the choice of a muxer."""
CIRCUIT_DIAL_S = 15.0
"""For one address behind a relay: the relay, the circuit, Noise and the choice of a muxer."""

log = structlog.get_logger("swarm.network")


class Dialling:
    """Makes wires to addresses.

    Args:
        listening: The addresses that this node listens on now.
        upgrade: Makes a link of a wire to the peer that is expected.
        traffic: Limits and counts what goes to other machines; None: nobody does.

    Attributes:
        keeps_port: Whether an address is dialled from the port that this node listens on.
        circuit: Makes a wire through a relay; None: relays are not used here.
    """

    def __init__(
        self,
        listening: Callable[[], list[Address]],
        upgrade: Callable[[Wire, str | None], Awaitable[Link]],
        traffic: Traffic | None,
    ) -> None:
        self.keeps_port: Callable[[Address], bool] = lambda _: False
        self.circuit: Callable[[Address], Awaitable[Wire]] | None = None
        self._listening = listening
        self._upgrade = upgrade
        self._traffic = traffic

    async def dial(self, address: Address) -> Link:
        """Connect to one address; the link has not been greeted, and nobody runs it yet.

        Raises:
            UnreachableError: Nobody answers there in `DIAL_S`, or another peer than expected.
        """
        who = address.peer or str(address)
        limit = DIAL_S if address.relay is None else CIRCUIT_DIAL_S
        wire: Wire | None = None
        try:
            with trio.fail_after(limit):
                wire, kept_port = await self._connect(address)
                link = await self._upgrade(wire, address.peer)
        except BaseException as error:
            if wire is not None:
                wire.close_now()
            if isinstance(error, trio.TooSlowError):
                raise UnreachableError(who, f"no answer in {limit:g} s") from None
            if isinstance(error, (OSError, ValueError)):
                cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
                raise UnreachableError(
                    who, getattr(cause, "strerror", None) or str(cause)
                ) from error
            if isinstance(error, (RemoteProtocolError, WireError)):
                raise UnreachableError(who, str(error)) from error
            if isinstance(error, Exception) and not isinstance(error, UnreachableError):
                # Nothing that one peer says may end more than the way to it.
                log.warning("network.dial_broke", peer=who, error=repr(error))
                raise UnreachableError(who, f"dialling it failed: {error!r}") from error
            raise
        link.kept_port = kept_port
        return link

    async def _connect(self, address: Address) -> tuple[Wire, bool]:
        """A wire to an address, and whether it leaves from the port that this node listens on."""
        if address.relay is not None:
            if self.circuit is None:
                raise UnreachableError(str(address), "relays are not used here")
            return await self.circuit(address), False
        stream = await self.connect_from_port(address) if self.keeps_port(address) else None
        kept_port = stream is not None
        if stream is None:
            stream = await trio.open_tcp_stream(address.host, address.port)
        try:
            wire = Wire(stream, is_initiator=True, traffic=self._traffic)
        except BaseException:
            stream.socket.close()
            raise
        return wire, kept_port

    async def connect_from_port(self, address: Address) -> trio.SocketStream | None:
        """Connect from the port that this node listens on, so that a router gives both the same number.

        Returns:
            None where this machine cannot: it listens on no such port, or a connection of both ends was there a moment ago.

        Raises:
            OSError: Nobody answers there.
        """
        bound = next((one for one in self._listening() if one.kind == address.kind), None)
        if bound is None or addresses.is_loopback(bound.host):
            return None
        family = socket.AF_INET if address.kind == "ip4" else socket.AF_INET6
        made = trio.socket.socket(family, socket.SOCK_STREAM)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            await made.bind((bound.host, bound.port))
            await made.connect((address.host, address.port))
            return trio.SocketStream(made)
        except OSError as error:
            made.close()
            if error.errno in {errno.EADDRINUSE, errno.EADDRNOTAVAIL}:
                return None
            raise
        except BaseException:
            made.close()
            raise
