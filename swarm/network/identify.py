"""What every libp2p node answers, and we too: identify, which tells keys, addresses and protocols, and ping.

Source: libp2p specs, identify/README.md and ping/ping.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio
from google.protobuf.message import DecodeError
from libp2p.identity.identify.pb.identify_pb2 import Identify

from protocols.transport import RemoteProtocolError
from storage.dag_pb import varint
from swarm.network import envelopes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from swarm.network.addresses import Address
    from swarm.network.muxed_stream import MuxedStream

PROTOCOL = "/ipfs/id/1.0.0"
PING_PROTOCOL = "/ipfs/ping/1.0.0"
PING_BYTES = 32
PING_PAUSE_S = 0.01
"""Between an answer and the next on a stream: whoever measures a way needs no more, and answers cost more than questions."""
PROTOCOL_VERSION = "ipfs/0.1.0"
MAX_IDENTITY_BYTES = 64 * 2**10
"""What a peer may say of itself; Kubo says about 2 KiB."""
MAX_MESSAGES = 10
"""Parts in which it may say so."""
MAX_PROTOCOLS = 256
MAX_AGENT_CHARS = 128


@dataclass(frozen=True, slots=True)
class Identity:
    """What a peer says of itself.

    Attributes:
        agent: Its software.
        protocols: What it serves.
        observed: Where it sees this node; never to be trusted alone. None: it does not say.
    """

    agent: str
    protocols: frozenset[str]
    observed: Address | None = None


def told(
    key: bytes,
    agent: str,
    listening: Iterable[Address],
    protocols: Iterable[str],
    observed: Address,
) -> bytes:
    """What this node says of itself, as one length-prefixed message.

    Args:
        key: Its public key as libp2p writes it.
        agent: Its software.
        listening: Where others can dial it.
        protocols: What it serves to this peer.
        observed: Where this node sees the peer.
    """
    body = Identify(
        public_key=key,
        listen_addrs=envelopes.packed(listening),
        protocols=sorted(protocols),
        observed_addr=next(iter(envelopes.packed([observed.bare])), b""),
        protocol_version=PROTOCOL_VERSION,
        agent_version=agent,
    ).SerializeToString()
    return varint(len(body)) + body


async def ask(stream: MuxedStream) -> Identity:
    """Read what a peer says of itself, to the end of the stream.

    Raises:
        RemoteProtocolError: Malformed, or longer than allowed.
        StreamError: The stream was lost.
    """
    data = bytearray()
    while part := await stream.receive_some():
        data += part
        if len(data) > MAX_IDENTITY_BYTES:
            message = f"an identity of more than {MAX_IDENTITY_BYTES:,} bytes"
            raise RemoteProtocolError(message)
    found = Identify()
    at = 0
    for _ in range(MAX_MESSAGES):
        if at == len(data):
            break
        length, at = _read_varint(data, at)
        if length > len(data) - at:
            message = "an identity that is cut short"
            raise RemoteProtocolError(message)
        try:
            found.MergeFromString(bytes(data[at : at + length]))
        except DecodeError as error:
            message = "an identity that is malformed"
            raise RemoteProtocolError(message) from error
        at += length
    said: tuple[object, ...] = (found.agent_version, *found.protocols[:MAX_PROTOCOLS])
    if not all(isinstance(one, str) for one in said):
        # The fields of proto2 may hold any bytes; what is no text then comes as bytes.
        message = "an identity whose text is not UTF-8"
        raise RemoteProtocolError(message)
    return Identity(
        "".join(filter(str.isprintable, found.agent_version))[:MAX_AGENT_CHARS],
        frozenset(found.protocols[:MAX_PROTOCOLS]),
        next(iter(envelopes.unpacked([found.observed_addr])), None),
    )


async def answer_pings(stream: MuxedStream) -> None:
    """Send back what comes, 32 bytes at a time, until the peer has finished.

    Raises:
        StreamError: The stream was lost.
    """
    pending = b""
    while data := await stream.receive_some(PING_BYTES - len(pending)):
        pending += data
        if len(pending) == PING_BYTES:
            await stream.send_all(pending)
            pending = b""
            await trio.sleep(PING_PAUSE_S)


def _read_varint(data: bytearray, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 21, 7):
        if at >= len(data):
            break
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return value, at
    message = "a length that does not end"
    raise RemoteProtocolError(message)
