"""The addresses that a node listens on."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

import trio

from swarm.errors import NetworkError
from swarm.network import addresses

if TYPE_CHECKING:
    from collections.abc import Sequence


async def listeners(wanted: Sequence[str]) -> list[trio.SocketListener]:
    """Take addresses, all or none.

    Raises:
        NetworkError: One of them is taken, or not of this machine; with what to do.
    """
    taken: list[trio.SocketListener] = []
    for text in wanted:
        address = addresses.parse(text)
        try:
            taken += await trio.open_tcp_listeners(address.port, host=address.host)
        except OSError as error:
            _close(taken)
            message = f"cannot listen on {text}: {error.strerror or error}"
            raise NetworkError(message, _hint(error)) from error
    return taken


async def check(wanted: Sequence[str]) -> None:
    """Take addresses and give them back, so that nothing is begun where they cannot be had.

    Raises:
        NetworkError: As by `listeners`.
    """
    _close(await listeners(wanted))


def _close(taken: Sequence[trio.SocketListener]) -> None:
    for listener in taken:
        listener.socket.close()


def _hint(error: OSError) -> str:
    """What to do where an address cannot be listened on."""
    if isinstance(error, socket.gaierror):
        return "the name leads to no address; give one of this machine: /ip4/0.0.0.0/tcp/PORT stands for all that it has"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address; /ip4/0.0.0.0/tcp/PORT stands for all that it has"
    if error.errno == errno.EACCES:
        return "ports below 1,024 are the system's: give a higher one"
    if error.errno == errno.EADDRINUSE:
        return "another node may be running there; give another port"
    return "give another address: /ip4/0.0.0.0/tcp/PORT stands for all that this machine has"
