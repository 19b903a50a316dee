"""Bytes: pinned, round trips, and nothing but MessageError for the rest."""

from __future__ import annotations

import contextlib
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.consensus.application import Validator
from protocols.consensus.errors import EvidenceError, MessageError
from protocols.consensus.evidence import encode_evidence, verify_evidence
from protocols.consensus.messages import (
    MAX_PAYLOAD_BYTES,
    Ask,
    Block,
    Cast,
    Certificate,
    Certify,
    Give,
    Header,
    Kind,
    Proposal,
    Vote,
    decode_message,
    epoch_of,
    genesis_block,
    quorum,
    verify_certificate,
)
from protocols.signing import Signer

CHAIN = b"c" * 32
KEYS = sorted((Signer(bytes([3, n]) * 16) for n in range(4)), key=lambda s: s.public_key)
SET = tuple(Validator(key.public_key, 1) for key in KEYS)
GENESIS = genesis_block(CHAIN, 1_700_000_000_000, b"r" * 32)
BLOCK = Block(
    CHAIN, 0, 1, 1, GENESIS.id, 1_700_000_000_001, KEYS[0].public_key, b"s" * 32, b"payload"
)


def vote(place, kind=Kind.FINALIZE, view=1, block_id=BLOCK.id):
    return Vote.sign(KEYS[place], CHAIN, kind, 0, view, block_id)


FINAL = Certificate(
    Kind.FINALIZE, 0, 1, BLOCK.id, tuple((place, vote(place).signature) for place in range(3))
)
PROPOSAL = Proposal(1, BLOCK, None, (), vote(0, Kind.NOTARIZE))
MESSAGES = [PROPOSAL, Cast(vote(1)), Certify(FINAL), Ask(0, BLOCK.id), Give(0, BLOCK)]


def test_the_bytes_are_what_they_were():
    """Another network could not read ours if one of these changed: a decision, never an accident."""
    assert GENESIS.id.hex() == "53bffeb55180e94c96f1566523f84b85fa28b6e91a9b6ae877116b0133027f9b"
    assert BLOCK.id.hex() == "35822889bb43b01519653784f4db7c12be9423f53f69b9c710151dc626b7c9c8"
    digest = hashlib.sha256(b"".join(message.encode() for message in MESSAGES))
    assert digest.hexdigest() == "480c1e243e05d385e8cc189946c860d56f5d90f259abb9bf4411c5625132bc25"


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_survives_its_bytes(message):
    assert decode_message(message.encode()) == message


def test_a_header_alone_gives_the_id_of_its_block():
    assert Header.decode(BLOCK.header_bytes).id == BLOCK.id
    assert BLOCK.header.encode() == BLOCK.header_bytes


def test_a_block_with_another_payload_is_refused():
    other = Block(*(getattr(BLOCK, n) for n in list(BLOCK.__slots__)[:8]), b"another")
    forged = other.encode().replace(other.header_bytes, BLOCK.header_bytes)
    with pytest.raises(MessageError, match="payload"):
        Block.decode(forged)


def test_the_largest_block_passes_and_one_byte_more_does_not():
    fields = [getattr(BLOCK, n) for n in list(BLOCK.__slots__)[:8]]
    whole = Block(*fields, bytes(MAX_PAYLOAD_BYTES))
    assert decode_message(Give(0, whole).encode()) == Give(0, whole)
    with pytest.raises(MessageError):
        Block.decode(Block(*fields, bytes(MAX_PAYLOAD_BYTES + 1)).encode())


@given(st.binary(max_size=400))
def test_any_bytes_are_a_message_or_refused(data):
    with contextlib.suppress(MessageError):
        assert decode_message(data).encode() == data


@given(st.sampled_from(MESSAGES), st.data())
def test_a_message_with_a_changed_byte_is_another_or_refused(message, data):
    good = bytearray(message.encode())
    at = data.draw(st.integers(0, len(good) - 1))
    good[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(MessageError):
        assert decode_message(bytes(good)) != message


@pytest.mark.parametrize(("total", "q"), [(1, 1), (3, 3), (4, 3), (7, 5), (10, 7), (31, 21)])
def test_a_quorum_is_more_than_two_thirds(total, q):
    assert quorum(total) == q


@pytest.mark.parametrize(("height", "epoch"), [(0, 0), (1, 0), (10, 0), (11, 1), (20, 1)])
def test_an_epoch_of_ten_ends_with_a_round_height(height, epoch):
    assert epoch_of(height, 10) == epoch


def test_a_certificate_holds_only_with_a_quorum_of_distinct_signers():
    assert verify_certificate(FINAL, CHAIN, SET)
    few = Certificate(FINAL.kind, 0, 1, BLOCK.id, FINAL.signatures[:2])
    assert not verify_certificate(few, CHAIN, SET)
    twice = Certificate(FINAL.kind, 0, 1, BLOCK.id, (FINAL.signatures[0],) * 3)
    assert not verify_certificate(twice, CHAIN, SET)
    with pytest.raises(MessageError, match="order"):
        Certificate.decode(twice.encode())
    assert not verify_certificate(FINAL, b"d" * 32, SET), "of another chain"
    assert not verify_certificate(FINAL, CHAIN, SET[::-1]), "of other validators"
    heavy = (*SET[:3], Validator(SET[3].public_key, 3))
    assert not verify_certificate(FINAL, CHAIN, heavy), "weight counts, not heads"
    heavier = (*SET[:2], Validator(SET[2].public_key, 4), SET[3])
    pair = Certificate(FINAL.kind, 0, 1, BLOCK.id, FINAL.signatures[1:])
    assert verify_certificate(pair, CHAIN, heavier), "two heads of weight five in seven"
    outside = Certificate(FINAL.kind, 0, 1, BLOCK.id, ((9, FINAL.signatures[0][1]),))
    assert not verify_certificate(outside, CHAIN, SET)


def test_evidence_is_the_same_in_either_order_and_names_the_accused():
    one, other = vote(2, Kind.NOTARIZE), vote(2, Kind.NOTARIZE, 1, GENESIS.id)
    proof = encode_evidence(one, other)
    assert proof == encode_evidence(other, one)
    assert verify_evidence(proof, CHAIN) == KEYS[2].public_key
    with pytest.raises(EvidenceError):
        verify_evidence(proof, b"d" * 32)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (vote(1), vote(2, Kind.FINALIZE, 1, GENESIS.id)),
        (vote(1), vote(1, Kind.FINALIZE, 2, GENESIS.id)),
        (vote(1), vote(1)),
        (vote(1, Kind.NOTARIZE), Vote.sign(KEYS[1], CHAIN, Kind.NULLIFY, 0, 1)),
        (vote(1, Kind.NOTARIZE), vote(1, Kind.FINALIZE, 1, GENESIS.id)),
    ],
)
def test_what_does_not_contradict_is_no_evidence(one, other):
    with pytest.raises(EvidenceError):
        verify_evidence(encode_evidence(one, other), CHAIN)


@given(st.binary(max_size=300))
def test_any_bytes_as_evidence_are_refused(data):
    with pytest.raises(EvidenceError):
        verify_evidence(data, CHAIN)
