"""What every node must agree on: which signatures hold. All use the same verifier, and it is strict."""

from __future__ import annotations

import hashlib

import pytest
from nacl import bindings

from protocols import signing
from protocols.signing import Signer

TAG, MESSAGE = b"swarm/test/1", b"message"
ORDER = 2**252 + 27742317777372353535851937790883648493
SMALL = {
    "order 1": b"\x01" + bytes(31),
    "order 2": bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    "order 4": bytes(32),
    "order 8": bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
}


@pytest.mark.parametrize("point", SMALL.values(), ids=SMALL)
def test_a_key_of_small_order_signs_nothing(point):
    """With such a key `R = P, s = 0` holds for one message in a few, and for all of them at order 1."""
    for number in range(64):
        for first in SMALL.values():
            assert not signing.verify(point, TAG, b"%d" % number, first + bytes(32))


@pytest.mark.parametrize("torsion", list(SMALL.values())[1:], ids=list(SMALL)[1:])
def test_a_point_of_small_order_added_to_a_signature_breaks_it(torsion):
    signer = Signer(b"a" * 32)
    signature = signer.sign(TAG, MESSAGE)
    assert signing.verify(signer.public_key, TAG, MESSAGE, signature)
    moved = bindings.crypto_core_ed25519_add(signature[:32], torsion) + signature[32:]
    assert not signing.verify(signer.public_key, TAG, MESSAGE, moved)


def test_a_signature_has_one_spelling():
    signer = Signer(b"a" * 32)
    signature = signer.sign(TAG, MESSAGE)
    larger = int.from_bytes(signature[32:], "little") + ORDER
    again = signature[:32] + larger.to_bytes(32, "little")
    assert not signing.verify(signer.public_key, TAG, MESSAGE, again)


def test_any_changed_bit_tag_or_message_breaks_a_signature():
    signer = Signer(b"a" * 32)
    signature = signer.sign(TAG, MESSAGE)
    for at in range(512):
        changed = bytearray(signature)
        changed[at // 8] ^= 1 << at % 8
        assert not signing.verify(signer.public_key, TAG, MESSAGE, bytes(changed))
    assert not signing.verify(signer.public_key, b"swarm/other/1", MESSAGE, signature)
    assert not signing.verify(signer.public_key, TAG, hashlib.sha256(MESSAGE).digest(), signature)
