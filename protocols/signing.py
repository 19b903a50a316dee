"""Keys and signatures: one Ed25519 key is a node's peer id, its ledger account and its vote.

A signature is over `tag || 0x00 || message`, so that no signature for one purpose counts for another.
PyNaCl only: two Ed25519 verifiers can disagree on odd points, and that would split a chain.
Source: RFC 8032; peer ids: https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md.
"""

from __future__ import annotations

import base58
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

PUBLIC_KEY_BYTES = 32
SIGNATURE_BYTES = 64
_PEER_ID_PREFIX = bytes.fromhex("002408011220")
"""Identity multihash of the protobuf `PublicKey{Ed25519, 32 bytes}`."""


class Signer:
    """A secret key that signs under a domain tag."""

    def __init__(self, seed: bytes) -> None:
        self._key = SigningKey(seed)
        self.public_key = bytes(self._key.verify_key)
        self.peer_id = peer_id(self.public_key)

    def sign(self, tag: bytes, message: bytes) -> bytes:
        """Sign a message for one purpose; 64 bytes."""
        return self._key.sign(tag + b"\x00" + message).signature

    @property
    def seed(self) -> bytes:
        """The 32 secret bytes."""
        return bytes(self._key)


def verify(public_key: bytes, tag: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the signature is that key's over that message for that purpose."""
    if len(public_key) != PUBLIC_KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        VerifyKey(public_key).verify(tag + b"\x00" + message, signature)
    except (BadSignatureError, ValueError):
        return False
    return True


def peer_id(public_key: bytes) -> str:
    """The libp2p peer id (base58, `12D3KooW…`) of an Ed25519 public key."""
    return base58.b58encode(_PEER_ID_PREFIX + public_key).decode()


def public_key(peer: str) -> bytes:
    """The 32-byte Ed25519 public key in a peer id.

    Raises:
        ValueError: Not the peer id of an Ed25519 key.
    """
    data = base58.b58decode(peer) if len(peer) <= 64 else b""
    if len(data) != len(_PEER_ID_PREFIX) + PUBLIC_KEY_BYTES or not data.startswith(_PEER_ID_PREFIX):
        message = f"{peer[:64]!r} is not the peer id of an Ed25519 key"
        raise ValueError(message)
    return data[len(_PEER_ID_PREFIX) :]
