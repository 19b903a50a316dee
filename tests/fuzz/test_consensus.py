"""Whatever a peer sends as a consensus message is one, or a message error."""

from __future__ import annotations

import pytest

from protocols.consensus import evidence, journal
from protocols.consensus.errors import EvidenceError, MessageError
from protocols.consensus.messages import (
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
)
from storage.errors import LogError
from tests.fuzz.fuzzing import Target, check
from tests.ledger.world import signer

ME = signer("me")
CHAIN = b"c" * 32
BLOCK = Block(CHAIN, 1, 5, 12, b"p" * 32, 1_700_000_000_000, ME.public_key, b"s" * 32, b"payload")
VOTES = [
    Vote.sign(ME, CHAIN, Kind.NOTARIZE, 1, 5, BLOCK.id),
    Vote.sign(ME, CHAIN, Kind.NOTARIZE, 1, 5, b"b" * 32),
    Vote.sign(ME, CHAIN, Kind.NULLIFY, 1, 5),
]
CERTIFICATES = [
    Certificate(one.kind, 1, 5, one.block_id, ((0, one.signature), (3, one.signature)))
    for one in VOTES
]
MESSAGES = [
    Proposal(5, BLOCK, CERTIFICATES[1], (CERTIFICATES[2],), VOTES[0]),
    Proposal(5, BLOCK, None, (), VOTES[0]),
    Cast(VOTES[2]),
    Certify(CERTIFICATES[0]),
    Ask(1, BLOCK.id),
    Give(1, BLOCK),
]
EVIDENCE = evidence.encode_evidence(VOTES[0], VOTES[1])


def encoded(*values) -> tuple[bytes, ...]:
    return tuple(one.encode() for one in values)


def entries(data: bytes) -> list:
    return list(journal.decode_entries([data]))


TARGETS = [
    Target("message", decode_message, MessageError, encoded(*MESSAGES), lambda m: m.encode()),
    Target("block", Block.decode, MessageError, encoded(BLOCK), Block.encode),
    Target("header", Header.decode, MessageError, (BLOCK.header_bytes,), Header.encode),
    Target("vote", Vote.decode, MessageError, encoded(*VOTES), Vote.encode),
    Target(
        "certificate", Certificate.decode, MessageError, encoded(*CERTIFICATES), Certificate.encode
    ),
    Target("evidence", evidence.decode_evidence, EvidenceError, (EVIDENCE,)),
    Target(
        "verified evidence",
        lambda data: evidence.verify_evidence(data, CHAIN),
        EvidenceError,
        (EVIDENCE,),
    ),
    Target(
        "journal",
        entries,
        LogError,
        (journal.encode_entry(VOTES[0]), *journal.Standing(3, 4).encode()),
    ),
]


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_any_bytes_are_accepted_or_refused_by_name(target):
    check(target)
