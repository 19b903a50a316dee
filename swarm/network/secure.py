"""From a socket to an authenticated peer: Noise XX with the peer's Ed25519 key, then yamux; nothing else is offered.

libp2p's Noise does the handshake; the messages after it are read and written here, many in one system call.
Source: libp2p specs, noise/README.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from libp2p.crypto.ed25519 import Ed25519PrivateKey
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.x25519 import create_new_key_pair as new_x25519_key_pair
from libp2p.peer.id import ID
from libp2p.security.noise.transport import Transport as NoiseTransport

from protocols import signing
from protocols.transport import RemoteProtocolError
from swarm.network import multistream, yamux
from swarm.network.wire import WireError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from protocols.signing import Signer
    from swarm.network.wire import Wire

NOISE = "/noise"
LENGTH_BYTES = 2
"""Before each message, big endian."""
TAG_BYTES = 16
"""By which a message is longer than what it says."""


class _Cipher:
    """One direction: ChaCha20-Poly1305 under its key, and the number of the next message.

    Args:
        state: The cipher state that noiseprotocol's handshake ended with.
    """

    def __init__(self, state: Any) -> None:  # noqa: ANN401 - noiseprotocol ships no types
        self._cipher = ChaCha20Poly1305(state.k)
        self._number: int = state.n

    def _nonce(self) -> bytes:
        number = self._number
        self._number += 1
        return b"\0\0\0\0" + number.to_bytes(8, "little")

    def open(self, message: memoryview) -> bytes:
        """What a message says."""
        try:
            return self._cipher.decrypt(self._nonce(), message, None)
        except InvalidTag as error:
            why = "a message that does not decrypt"
            raise RemoteProtocolError(why) from error

    def seal(self, plain: bytes, into: memoryview) -> None:
        """Write the message that says this."""
        self._cipher.encrypt_into(self._nonce(), plain, None, into)


class SecureChannel:
    """Noise messages over a wire, after the handshake.

    Args:
        wire: The socket.
        session: What libp2p's handshake returned.
    """

    def __init__(self, wire: Wire, session: Any) -> None:  # noqa: ANN401 - libp2p's ISecureConn
        noise = session.conn.noise_state.noise_protocol
        self._wire = wire
        self._opening = _Cipher(noise.cipher_state_decrypt)
        self._sealing = _Cipher(noise.cipher_state_encrypt)
        self._plain = b""
        self._out = bytearray()

    async def receive(self) -> bool:
        """Wait for bytes of the peer; false at a clean end.

        Raises:
            WireError: The connection broke, or ended inside a message.
        """
        if await self._wire.more():
            return True
        if self._wire.arrived:
            message = "the connection ended"
            raise WireError(message)
        return False

    def messages(self) -> Iterator[bytes]:
        """The messages that have arrived whole, each decrypted as it is asked for.

        Raises:
            RemoteProtocolError: The peer did not encrypt one, or it was changed on the way.
        """
        if self._plain:
            plain, self._plain = self._plain, b""
            yield plain
        while True:
            arrived = self._wire.arrived
            if len(arrived) < LENGTH_BYTES:
                return
            end = LENGTH_BYTES + (arrived[0] << 8 | arrived[1])
            if len(arrived) < end:
                return
            self._wire.take(end)
            if plain := self._opening.open(arrived[LENGTH_BYTES:end]):
                yield plain

    async def send_messages(self, messages: Sequence[bytes]) -> None:
        """Encrypt each and write all at once."""
        size = sum(LENGTH_BYTES + len(message) + TAG_BYTES for message in messages)
        if len(self._out) < size:
            self._out = bytearray(size)
        out = memoryview(self._out)
        at = 0
        for message in messages:
            length = len(message) + TAG_BYTES
            out[at : at + LENGTH_BYTES] = length.to_bytes(LENGTH_BYTES, "big")
            at += LENGTH_BYTES
            self._sealing.seal(message, out[at : at + length])
            at += length
        await self._wire.send_all(out[:at])

    async def receive_some(self, max_bytes: int) -> bytes:
        """For the choice of a muxer: at least one byte."""
        while (data := next(self.messages(), b"")) == b"":
            if not await self.receive():
                return b""
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
            await multistream.propose(channel, [yamux.PROTOCOL])
        else:
            await multistream.accept(channel, [yamux.PROTOCOL])
        return Secured(channel, found)
