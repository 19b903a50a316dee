"""A verifiable random function: an output that a key fixes and anyone can check, but only its holder foresees.

ECVRF-EDWARDS25519-SHA512-TAI, RFC 9381, suite 0x03, over libsodium's group operations.
A proof is `Gamma (32) || c (16) || s (32)`; an output is 64 bytes.
Stricter than the RFC: the public key and Gamma have to lie in the prime-order subgroup, as every honest one does.
"""

from __future__ import annotations

import hashlib
from typing import Final

from nacl import bindings
from nacl.exceptions import CryptoError

from swarm.ledger.errors import VrfError

PROOF_BYTES: Final = 80
OUTPUT_BYTES: Final = 64
KEY_BYTES: Final = 32
_SUITE: Final = b"\x03"
_FIELD: Final = 2**255 - 19
_ORDER: Final = 2**252 + 27742317777372353535851937790883648493
_IDENTITY: Final = b"\x01" + bytes(31)
_SEED_TAG: Final = b"swarm vrf"


class VrfKey:
    """A secret key that proves."""

    def __init__(self, seed: bytes) -> None:
        """Take 32 secret bytes, of an Ed25519 secret key's form."""
        hashed = hashlib.sha512(seed).digest()
        scalar = bytearray(hashed[:32])
        scalar[0] &= 248
        scalar[31] = scalar[31] & 127 | 64
        self._scalar = int.from_bytes(scalar, "little")
        self._nonce_key = hashed[32:]
        self.public_key: bytes = bindings.crypto_scalarmult_ed25519_base_noclamp(bytes(scalar))

    @classmethod
    def of(cls, signing_seed: bytes) -> VrfKey:
        """The key of a node: its seed is SHA-256("swarm vrf" || signing seed)."""
        return cls(hashlib.sha256(_SEED_TAG + signing_seed).digest())

    def prove(self, alpha: bytes) -> bytes:
        """The proof of an input; `output` gives what it proves."""
        point = _to_curve(self.public_key, alpha)
        gamma = _multiply(self._scalar, point)
        nonce = int.from_bytes(hashlib.sha512(self._nonce_key + point).digest(), "little") % _ORDER
        c = _challenge(
            self.public_key, point, gamma, _multiply_generator(nonce), _multiply(nonce, point)
        )
        s = (nonce + int.from_bytes(c, "little") * self._scalar) % _ORDER
        return gamma + c + s.to_bytes(32, "little")


def verify(public_key: bytes, alpha: bytes, proof: bytes) -> bytes:
    """Check a proof.

    Returns:
        The output that it proves, 64 bytes.

    Raises:
        VrfError: Key or proof is malformed, or the proof is of another key or input.
    """
    if not is_key(public_key):
        message = "not a key of the verifiable random function"
        raise VrfError(message)
    if len(proof) != PROOF_BYTES or not _is_point(proof[:32]):
        message = "not a proof of the verifiable random function"
        raise VrfError(message)
    gamma, c, s = proof[:32], proof[32:48], int.from_bytes(proof[48:], "little")
    if s >= _ORDER:
        message = "a proof's scalar is not reduced"
        raise VrfError(message)
    point = _to_curve(public_key, alpha)
    challenge = int.from_bytes(c, "little")
    try:
        u = _subtract(_multiply_generator(s), _multiply(challenge, public_key))
        v = _subtract(_multiply(s, point), _multiply(challenge, gamma))
    except CryptoError as error:  # a zero scalar: no honest proof has one
        message = "a proof of the verifiable random function with a zero scalar"
        raise VrfError(message) from error
    if _challenge(public_key, point, gamma, u, v) != c:
        message = "the proof is of another key or input"
        raise VrfError(message)
    return output(proof)


def output(proof: bytes) -> bytes:
    """What a proof proves, unchecked: 64 bytes."""
    cleared = _times_cofactor(proof[:32])
    return hashlib.sha512(_SUITE + b"\x03" + cleared + b"\x00").digest()


def is_key(public_key: bytes) -> bool:
    """Whether 32 bytes are a canonical point of prime order."""
    return len(public_key) == KEY_BYTES and _is_point(public_key)


def _to_curve(public_key: bytes, alpha: bytes) -> bytes:
    """RFC 9381, 5.4.1.1: try and increment."""
    for counter in range(256):
        candidate = hashlib.sha512(
            _SUITE + b"\x01" + public_key + alpha + bytes((counter,)) + b"\x00"
        ).digest()[:32]
        y = int.from_bytes(candidate, "little") & (2**255 - 1)
        if y >= _FIELD or (y in (1, _FIELD - 1) and candidate[31] & 0x80):
            continue
        try:
            point = _times_cofactor(candidate)
        except CryptoError:
            continue
        if point != _IDENTITY:
            return point
    message = "no point for this input"  # of 256 tries each of which succeeds half the time
    raise VrfError(message)


def _challenge(*points: bytes) -> bytes:
    return hashlib.sha512(_SUITE + b"\x02" + b"".join(points) + b"\x00").digest()[:16]


def _times_cofactor(point: bytes) -> bytes:
    for _ in range(3):
        point = bindings.crypto_core_ed25519_add(point, point)
    return point


def _is_point(point: bytes) -> bool:
    return bool(bindings.crypto_core_ed25519_is_valid_point(point))


def _multiply(scalar: int, point: bytes) -> bytes:
    product: bytes = bindings.crypto_scalarmult_ed25519_noclamp(
        (scalar % _ORDER).to_bytes(32, "little"), point
    )
    return product


def _multiply_generator(scalar: int) -> bytes:
    product: bytes = bindings.crypto_scalarmult_ed25519_base_noclamp(
        (scalar % _ORDER).to_bytes(32, "little")
    )
    return product


def _subtract(left: bytes, right: bytes) -> bytes:
    difference: bytes = bindings.crypto_core_ed25519_sub(left, right)
    return difference
