"""Proof that a validator broke a rule: two of its votes that contradict each other.

    evidence = [vote, vote], the smaller encoding first

It needs no context: two notarizes of different blocks in a view, two finalizes of different blocks in a view,
or a nullify and a finalize in one view. A notarize and a nullify in one view are honest, and so are a notarize
of one block and a finalize of another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from protocols.consensus.blocks import decode, fields
from protocols.consensus.errors import EvidenceError, MessageError
from protocols.consensus.votes import MAX_VOTE_BYTES, Kind, Vote
from storage import canonical

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from protocols.consensus.application import Validator
    from protocols.consensus.votes import Certificate

MAX_EVIDENCE_BYTES: Final = 2 * MAX_VOTE_BYTES + 16


def contradict(one: Vote, other: Vote) -> bool:
    """Whether no honest validator casts both; signatures are not looked at."""
    if (one.voter, one.epoch, one.view) != (other.voter, other.epoch, other.view):
        return False
    if one.kind is other.kind:
        return one.kind is not Kind.NULLIFY and one.block_id != other.block_id
    return {one.kind, other.kind} == {Kind.NULLIFY, Kind.FINALIZE}


def encode_evidence(one: Vote, other: Vote) -> bytes:
    """The evidence of two contradicting votes; the same bytes in whichever order they come."""
    first, second = sorted((one, other), key=Vote.encode)
    return canonical.encode([first.to_value(), second.to_value()])


def verify_evidence(evidence: bytes, chain_id: bytes) -> bytes:
    """Check evidence from anyone.

    Returns:
        The public key of the accused. Whether it was bonded in that epoch is the ledger's to know.

    Raises:
        EvidenceError: It proves nothing.
    """
    one, other = decode_evidence(evidence)
    if not contradict(one, other):
        message = "the two votes do not contradict each other"
        raise EvidenceError(message)
    if not (one.is_signed(chain_id) and other.is_signed(chain_id)):
        message = "a vote is not signed by the accused for this chain"
        raise EvidenceError(message)
    return one.voter


def decode_evidence(evidence: bytes) -> tuple[Vote, Vote]:
    """The two votes, unchecked but in their order; `epoch` and `view` are theirs.

    Raises:
        EvidenceError: Malformed.
    """
    try:
        items = fields(decode(evidence, MAX_EVIDENCE_BYTES), 2)
        one, other = Vote.from_value(items[0]), Vote.from_value(items[1])
    except MessageError as error:
        raise EvidenceError(str(error)) from error
    if one.encode() >= other.encode():
        message = "the two votes are not in order"
        raise EvidenceError(message)
    return one, other


def votes_of(certificate: Certificate, validators: Sequence[Validator]) -> list[Vote]:
    """The votes that a verified certificate is made of."""
    return [
        Vote(
            certificate.kind,
            certificate.epoch,
            certificate.view,
            certificate.block_id,
            validators[index].public_key,
            signature,
        )
        for index, signature in certificate.signatures
    ]


def audit(votes: Iterable[Vote]) -> dict[bytes, bytes]:
    """Look for contradictions among votes from everywhere, as after a fork.

    Args:
        votes: With good signatures, from logs and certificates (`votes_of`).

    Returns:
        Evidence for each accused public key, one each.
    """
    cast: dict[tuple[bytes, int, int], list[Vote]] = {}
    accused: dict[bytes, bytes] = {}
    for vote in votes:
        others = cast.setdefault((vote.voter, vote.epoch, vote.view), [])
        for other in others:
            if contradict(vote, other) and vote.voter not in accused:
                accused[vote.voter] = encode_evidence(vote, other)
        others.append(vote)
    return accused
