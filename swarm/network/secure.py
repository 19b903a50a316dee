"""From a socket to an authenticated peer: Noise XX with the peer's Ed25519 key, then yamux; nothing else is offered.

libp2p's Noise does the handshake; the messages after it are read and written here, many in one system call.
Source: libp2p specs, noise/README.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from libp2p.crypto.ed25519 import Ed25519PrivateKey
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.x25519 import create_new_key_pair as new_x25519_key_pair
from libp2p.peer.id import ID
from libp2p.security.noise.transport import Transport as NoiseTransport

from protocols import signing
from protocols.transport import RemoteProtocolError
from swarm.network import multistream, muxer
from swarm.network.wire import WireError

if TYPE_CHECKING:
    from collections.abc import Callable

    from protocols.signing import Signer
    from swarm.network.wire import Wire

NOISE = "/noise"


class SecureChannel:
    """Noise messages over a wire, after the handshake.

    Args:
        wire: The socket.
        session: What libp2p's handshake returned.
    """

    def __init__(self, wire: Wire, session: Any) -> None:  # noqa: ANN401 - libp2p's ISecureConn
        self._wire = wire
        self._decrypt: Callable[[bytes], bytes] = session.conn.decrypt
        self._encrypt: Callable[[bytes], bytes] = session.conn.encrypt
        self._plain = b""

    async def receive_message(self) -> bytes:
        """The next message's plaintext; `b""` at a clean end.

        Raises:
            WireError: The connection broke, or ended inside a message.
        """
        if self._plain:
            plain, self._plain = self._plain, b""
            return plain
        while True:
            first = await self._wire.receive_some(1)
            if not first:
                return b""
            second = await self._wire.read_exactly(1)
            body = await self._wire.read_exactly(first[0] << 8 | second[0])
            plain = self._decrypt(body)
            if plain:
                return plain

    async def send_messages(self, messages: list[bytes]) -> None:
        """Encrypt each and write all at once."""
        parts: list[bytes] = []
        for message in messages:
            body = self._encrypt(message)
            parts.append(len(body).to_bytes(2, "big"))
            parts.append(body)
        await self._wire.send_all(b"".join(parts))

    async def receive_some(self, max_bytes: int) -> bytes:
        """For the choice of a muxer: at least one byte."""
        data = await self.receive_message()
        self._plain = data[max_bytes:]
        return data[:max_bytes]

    async def send_all(self, data: bytes) -> None:
        """For the choice of a muxer: a short message."""
        await self.send_messages([data])

    def close_now(self) -> None:
        """Release the socket at once."""
        self._wire.close_now()


@dataclass(frozen=True, slots=True)
class Secured:
    """A connection whose other side has proven its key."""

    channel: SecureChannel
    peer: str


class Keys:
    """This node's keys as libp2p wants them.

    Args:
        signer: The node's one key.
    """

    def __init__(self, signer: Signer) -> None:
        private = Ed25519PrivateKey.from_bytes(signer.seed)
        self.pair = KeyPair(private, private.get_public_key())
        self.id = ID.from_pubkey(self.pair.public_key)
        if self.id.to_base58() != signer.peer_id:
            message = "libp2p derives another peer id from this key"
            raise ValueError(message)
        self._noise = NoiseTransport(self.pair, noise_privkey=new_x25519_key_pair().private_key)

    async def secure(self, wire: Wire, peer: str | None = None) -> Secured:
        """Secure a connection; for one that this side dialled, to `peer` if it is given.

        Raises:
            RemoteProtocolError: The handshake failed, or another key answered.
            WireError: The connection broke.
        """
        try:
            if wire.is_initiator:
                await multistream.propose(wire, [NOISE])
                pattern = self._noise.get_pattern()
                session: Any = await pattern.handshake_outbound(
                    wire, None if peer is None else ID.from_base58(peer)
                )
            else:
                await multistream.accept(wire, [NOISE])
                session = await self._noise.secure_inbound(wire)
        except (RemoteProtocolError, WireError):
            raise
        except Exception as error:
            message = f"the Noise handshake failed: {type(error).__name__} {error}".rstrip()
            raise RemoteProtocolError(message) from error
        found = session.get_remote_peer().to_base58()
        try:
            signing.public_key(found)
        except ValueError as error:
            raise RemoteProtocolError(str(error)) from error
        channel = SecureChannel(wire, session)
        if wire.is_initiator:
            await multistream.propose(channel, [muxer.PROTOCOL])
        else:
            await multistream.accept(channel, [muxer.PROTOCOL])
        return Secured(channel, found)
