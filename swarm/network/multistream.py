"""Which protocol a stream speaks: multistream-select 1.0.0, both sides, with bounds.

The opener sends the header and its choice in one write, so that a stream costs one round trip.
Source: https://github.com/multiformats/multistream-select.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from protocols.transport import RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

HEADER = "/multistream/1.0.0"
MAX_LINE_BYTES = 1024
MAX_PROPOSALS = 16
"""Protocols that an opener may try one after the other on one stream."""


class Pipe(Protocol):
    """What both sides need of a stream."""

    async def receive_some(self, max_bytes: int) -> bytes:
        """At least one byte; `b""` at the end."""

    async def send_all(self, data: bytes) -> None:
        """Write everything."""


class NotSpokenError(RemoteProtocolError):
    """The peer does not speak the protocol."""


async def propose(pipe: Pipe, protocols: Collection[str]) -> str:
    """Open a stream's talk with the first of `protocols` that the peer speaks.

    Raises:
        NotSpokenError: It speaks none of them.
        RemoteProtocolError: It does not speak multistream-select.
    """
    header_due = True
    for protocol in protocols:
        await pipe.send_all(_line(HEADER) + _line(protocol) if header_due else _line(protocol))
        if header_due:
            answer = await _read_line(pipe)
            if answer != HEADER:
                message = f"{answer!r} where {HEADER} was due"
                raise RemoteProtocolError(message)
            header_due = False
        answer = await _read_line(pipe)
        if answer == protocol:
            return protocol
        if answer != "na":
            message = f"{answer!r} in answer to {protocol}"
            raise RemoteProtocolError(message)
    message = f"the peer does not speak {' or '.join(protocols)}"
    raise NotSpokenError(message)


async def accept(
    pipe: Pipe,
    protocols: Collection[str],
    admit: Callable[[str], Awaitable[bool]] | None = None,
) -> str:
    """Answer an opener.

    Args:
        pipe: The stream.
        protocols: What is served here.
        admit: Whether one of them is served to this peer.

    Raises:
        RemoteProtocolError: The peer proposes nothing that is served, or breaks the rules.
    """
    header = await _read_line(pipe)
    if header != HEADER:
        message = f"{header!r} where {HEADER} was due"
        raise RemoteProtocolError(message)
    await pipe.send_all(_line(HEADER))
    for _ in range(MAX_PROPOSALS):
        proposed = await _read_line(pipe)
        if proposed in protocols and (admit is None or await admit(proposed)):
            await pipe.send_all(_line(proposed))
            return proposed
        if proposed == "ls":
            listing = b"".join(_line(protocol) for protocol in sorted(protocols))
            await pipe.send_all(_varint(len(listing) + 1) + listing + b"\n")
        else:
            await pipe.send_all(_line("na"))
    message = "too many proposals"
    raise RemoteProtocolError(message)


def _line(text: str) -> bytes:
    body = text.encode() + b"\n"
    return _varint(len(body)) + body


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


async def _read_line(pipe: Pipe) -> str:
    length = shift = 0
    while True:
        byte = (await _read(pipe, 1))[0]
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 14:
            message = "a length that does not end"
            raise RemoteProtocolError(message)
    if not 1 <= length <= MAX_LINE_BYTES:
        message = f"a line of {length} bytes where 1 to {MAX_LINE_BYTES} are allowed"
        raise RemoteProtocolError(message)
    line = await _read(pipe, length)
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        message = "a line that is not text"
        raise RemoteProtocolError(message) from error
    if not text.endswith("\n"):
        message = "a line without its end"
        raise RemoteProtocolError(message)
    return text[:-1]


async def _read(pipe: Pipe, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = await pipe.receive_some(count - len(data))
        if not part:
            message = "the stream ended while its protocol was chosen"
            raise RemoteProtocolError(message)
        data += part
    return data
