"""Every decoder of the ledger takes bytes that encode back to the same, or raises its own error and nothing else.

Bytes are valid ones with something changed: a bit, a cut, a copy, a field of the list inside.
`SOAK=50 pytest tests/ledger/test_fuzz.py` looks fifty times as long.
"""

from __future__ import annotations

import os

from hypothesis import example, given, settings
from hypothesis import strategies as st

from protocols.consensus import evidence as contradictions
from protocols.consensus.errors import EvidenceError
from protocols.consensus.messages import Kind, Vote
from storage import canonical
from storage.errors import CanonicalError
from swarm.ledger import payloads, transactions
from swarm.ledger.errors import GenesisError, TransactionError
from swarm.ledger.genesis import Genesis
from tests.ledger.test_transactions import ALICE, CHAIN, PAYLOADS, make
from tests.ledger.world import make_genesis, signer

SOAK = int(os.environ.get("SOAK", "1"))
FEW = settings(max_examples=60 * SOAK, deadline=None)
GENESIS = make_genesis([signer("a"), signer("b")], [ALICE]).encode()
EVIDENCE = contradictions.encode_evidence(
    *[Vote.sign(ALICE, CHAIN, Kind.NOTARIZE, 1, 2, block * 32) for block in (b"a", b"b")]
)

odd = st.recursive(
    st.integers(-(2**66), 2**66)
    | st.sampled_from([0, 2**53, 2**63, 2**64, 2**128])
    | st.binary(max_size=40)
    | st.text(max_size=5)
    | st.none()
    | st.booleans(),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=6,
)


@st.composite
def changed(draw, valid: bytes):
    """Valid bytes after a few accidents."""
    data = bytearray(valid)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        how = draw(st.integers(0, 4))
        if how == 0 and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif how == 1:
            del data[at : at + draw(st.integers(1, 40))]
        elif how == 2:
            data[at:at] = draw(st.binary(max_size=8))
        elif how == 3:
            data += data[: draw(st.integers(1, 20))]
        elif data:
            data[at] = draw(st.sampled_from([0x00, 0x18, 0x1B, 0x40, 0x60, 0x80, 0x9F, 0xF6, 0xFF]))
    return bytes(data)


@st.composite
def rearranged(draw, valid: list):
    """A valid list with something odd at one place, at any depth."""
    value = list(valid)
    at = draw(st.integers(0, len(value)))
    how = draw(st.integers(0, 3))
    if how == 0 and at < len(value) and type(value[at]) is list:
        value[at] = draw(rearranged(value[at]))
    elif how == 1:
        value.insert(at, draw(odd))
    elif at < len(value):
        value[at : at + 1] = [draw(odd)] if how == 2 else []
    return value


def packed(transaction) -> bytes:
    """The bytes of a transaction, made anew from what was read."""
    one = transaction
    head = [transactions.VERSION, one.chain_id, one.sender, one.nonce, one.valid_until]
    tail = [one.max_fee, one.tip, one.gas, one.payload.TYPE, payloads.pack(one.payload)]
    return one.data[:64] + canonical.encode([*head, *tail])


def take_transaction(data: bytes) -> None:
    try:
        one = transactions.parse(data)
    except TransactionError:
        return
    assert packed(one) == data == one.data
    assert one.id == transactions.transaction_id(data)


def take_genesis(data: bytes) -> None:
    try:
        one = Genesis.decode(data)
    except GenesisError:
        return
    assert one.encode() == data


def take_evidence(data: bytes) -> None:
    try:
        one, other = contradictions.decode_evidence(data)
    except EvidenceError:
        return
    assert contradictions.encode_evidence(one, other) == data


def encoded(value) -> bytes | None:
    try:
        return canonical.encode(value)
    except CanonicalError:
        return None


@FEW
@given(st.sampled_from(PAYLOADS).flatmap(lambda one: changed(make(one))))
@example(b"")
@example(bytes(64))
def test_changed_bytes_of_a_transaction(data):
    take_transaction(data)


@FEW
@given(st.data(), st.sampled_from(PAYLOADS))
def test_changed_fields_of_a_transaction(data, payload):
    valid = make(payload)
    body = encoded(data.draw(rearranged(canonical.decode(valid[64:], max_bytes=2**16))))
    if body is not None:
        take_transaction(ALICE.sign(transactions.TAG, body) + body)


@FEW
@given(st.data(), st.sampled_from(PAYLOADS))
def test_changed_fields_of_a_payload(data, payload):
    values = data.draw(
        rearranged(canonical.decode(canonical.encode(payloads.pack(payload)), max_bytes=2**16))
    )
    sent = encoded(values)
    try:
        one = payloads.unpack(payload.TYPE, values)
    except TransactionError:
        return
    assert sent == canonical.encode(payloads.pack(one))


@FEW
@given(changed(GENESIS))
def test_changed_bytes_of_a_genesis(data):
    take_genesis(data)


@FEW
@given(rearranged(canonical.decode(GENESIS, max_bytes=2**16)))
def test_changed_fields_of_a_genesis(value):
    data = encoded(value)
    if data is not None:
        take_genesis(data)


@FEW
@given(changed(EVIDENCE))
def test_changed_bytes_of_evidence(data):
    take_evidence(data)


@FEW
@given(rearranged(canonical.decode(EVIDENCE, max_bytes=2**16)))
def test_changed_fields_of_evidence(value):
    data = encoded(value)
    if data is not None:
        take_evidence(data)
