"""Length-prefixed protobuf messages of libp2p on a stream, within bounds."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from google.protobuf.message import DecodeError, Message
from multiaddr import Multiaddr  # type: ignore[import-untyped]  # ships no types
from multiaddr.exceptions import Error as MultiaddrError  # type: ignore[import-untyped]

from protocols.transport import RemoteProtocolError
from storage.dag_pb import varint
from swarm.network import addresses
from swarm.network.addresses import Address, AddressError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from swarm.network.multistream import Pipe

MAX_MESSAGE_BYTES = 4096
MAX_ADDRESSES = 16
"""Read of one message; the others are left."""
_MAX_LENGTH_BYTES = 3

M = TypeVar("M", bound=Message)


async def send(pipe: Pipe, message: Message) -> None:
    """Write one message."""
    body = message.SerializeToString()
    await pipe.send_all(varint(len(body)) + body)


async def receive(pipe: Pipe, into: M) -> M:
    """Read one message, and not a byte more.

    Raises:
        RemoteProtocolError: Malformed, cut short, or longer than allowed.
        StreamError: The stream was lost.
    """
    length = 0
    for at in range(_MAX_LENGTH_BYTES):
        byte = (await _exactly(pipe, 1))[0]
        length |= (byte & 0x7F) << 7 * at
        if byte < 0x80:
            break
    else:
        why = "a length that does not end"
        raise RemoteProtocolError(why)
    if length > MAX_MESSAGE_BYTES:
        why = f"a message of {length:,} bytes where {MAX_MESSAGE_BYTES:,} are allowed"
        raise RemoteProtocolError(why)
    try:
        into.ParseFromString(await _exactly(pipe, length))
    except DecodeError as error:
        why = "a message that is malformed"
        raise RemoteProtocolError(why) from error
    return into


async def _exactly(pipe: Pipe, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = await pipe.receive_some(count - len(data))
        if not part:
            why = "the stream ended inside a message"
            raise RemoteProtocolError(why)
        data += part
    return data


def multiaddrs(found: Iterable[Address]) -> list[Multiaddr]:
    """Addresses as libp2p has them; names that it does not write are left out, such as those with an underscore."""
    written = []
    for address in found:
        with suppress(MultiaddrError, ValueError):
            written.append(Multiaddr(str(address)))
    return written


def packed(found: Iterable[Address]) -> list[bytes]:
    """Addresses as libp2p's messages carry them; see `multiaddrs`."""
    return [one.to_bytes() for one in multiaddrs(found)]


def unpacked(data: Iterable[bytes]) -> list[Address]:
    """The addresses of a peer's message that this node can dial; others are left out."""
    found = []
    for one in list(data)[:MAX_ADDRESSES]:
        try:
            address = addresses.parse(str(Multiaddr(bytes(one))))
        except (AddressError, MultiaddrError, ValueError, LookupError):
            continue
        if addresses.is_dialable(address):
            found.append(address)
    return found
