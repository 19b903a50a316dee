"""What validators say to each other, and its bytes: one canonical array a frame.

[1, view, block, parent certificate or null, [nullification, ...], the leader's notarize]   Propose
[2, vote]                                                                                   Cast
[3, certificate]                                                                            Certify
[4, epoch, block id]                                                                        Ask for a block, or for skipped views
[5, epoch, block]                                                                           Give it
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from protocols.consensus.blocks import (
    HASH_BYTES,
    MAX_BLOCK_BYTES,
    MAX_PAYLOAD_BYTES,
    Block,
    Header,
    decode,
    epoch_of,
    exactly,
    fields,
    genesis_block,
    number,
)
from protocols.consensus.errors import MessageError
from protocols.consensus.votes import (
    MAX_CERTIFICATE_BYTES,
    MAX_VALIDATORS,
    Certificate,
    Finalization,
    Kind,
    Notarization,
    Nullification,
    Vote,
    quorum,
    verify_certificate,
)
from storage import canonical

__all__ = [
    "MAX_BLOCK_BYTES",
    "MAX_CERTIFICATE_BYTES",
    "MAX_MESSAGE_BYTES",
    "MAX_NULLIFICATIONS",
    "MAX_PAYLOAD_BYTES",
    "MAX_VALIDATORS",
    "Ask",
    "Block",
    "Cast",
    "Certificate",
    "Certify",
    "Finalization",
    "Give",
    "Header",
    "Kind",
    "Message",
    "Notarization",
    "Nullification",
    "Proposal",
    "Vote",
    "decode_message",
    "epoch_of",
    "genesis_block",
    "quorum",
    "skipped",
    "skipped_from",
    "verify_certificate",
]

MAX_NULLIFICATIONS: Final = 256
"""In one proposal: the newest of the gap; receivers that were there know the older ones."""
MAX_MESSAGE_BYTES: Final = MAX_BLOCK_BYTES + (MAX_NULLIFICATIONS + 1) * MAX_CERTIFICATE_BYTES + 1024


@dataclass(frozen=True, slots=True)
class Proposal:
    """A leader's block for a view, with what shows that it may be built upon.

    `parent` certifies the parent (None: the last block of the epoch before); the block of an epoch's last
    height is proposed again unchanged, and then `parent` certifies the block itself.
    """

    view: int
    block: Block
    parent: Certificate | None
    nullifications: tuple[Certificate, ...]
    vote: Vote

    @property
    def epoch(self) -> int:
        """Of its block."""
        return self.block.epoch

    def encode(self) -> bytes:
        """Its canonical bytes."""
        return canonical.encode(
            [
                1,
                self.view,
                self.block.encode(),
                None if self.parent is None else self.parent.to_value(),
                [certificate.to_value() for certificate in self.nullifications],
                self.vote.to_value(),
            ]
        )


@dataclass(frozen=True, slots=True)
class Cast:
    """A vote."""

    vote: Vote

    @property
    def epoch(self) -> int:
        """Of the vote."""
        return self.vote.epoch

    def encode(self) -> bytes:
        """Its canonical bytes."""
        return canonical.encode([2, self.vote.to_value()])


@dataclass(frozen=True, slots=True)
class Certify:
    """A certificate that the sender holds."""

    certificate: Certificate

    @property
    def epoch(self) -> int:
        """Of the certificate."""
        return self.certificate.epoch

    def encode(self) -> bytes:
        """Its canonical bytes."""
        return canonical.encode([3, self.certificate.to_value()])


@dataclass(frozen=True, slots=True)
class Ask:
    """The sender lacks a certified block; or, where `skipped_from` reads a view, the nullifications from there on."""

    epoch: int
    block_id: bytes

    def encode(self) -> bytes:
        """Its canonical bytes."""
        return canonical.encode([4, self.epoch, self.block_id])


_SKIPPED: Final = bytes(HASH_BYTES - 8)


def skipped(view: int) -> bytes:
    """What an `Ask` names that is for the nullifications of a view and of those after it: no block's id."""
    return _SKIPPED + view.to_bytes(8, "big")


def skipped_from(block_id: bytes) -> int | None:
    """The first view whose nullification an `Ask` is for; None where it is for a block."""
    if not block_id.startswith(_SKIPPED):
        return None
    return int.from_bytes(block_id[len(_SKIPPED) :], "big")


@dataclass(frozen=True, slots=True)
class Give:
    """The answer to `Ask`; who does not hold the block is silent."""

    epoch: int
    block: Block

    def encode(self) -> bytes:
        """Its canonical bytes."""
        return canonical.encode([5, self.epoch, self.block.encode()])


Message: TypeAlias = Proposal | Cast | Certify | Ask | Give


def decode_message(data: bytes) -> Message:
    """Read one frame.

    Raises:
        MessageError: Malformed; no other error comes out, whatever the bytes.
    """
    value = decode(data, MAX_MESSAGE_BYTES)
    if type(value) is not list or not value or type(value[0]) is not int:
        message = "not a consensus message"
        raise MessageError(message)
    match value[0]:
        case 1:
            return _proposal(value)
        case 2:
            return Cast(Vote.from_value(fields(value, 2)[1]))
        case 3:
            return Certify(Certificate.from_value(fields(value, 2)[1]))
        case 4:
            _, epoch, block_id = fields(value, 3)
            return Ask(number(epoch), exactly(block_id, HASH_BYTES))
        case 5:
            _, epoch, block = fields(value, 3)
            return Give(number(epoch), _block(block))
        case _:
            message = f"no consensus message has the number {value[0]}"
            raise MessageError(message)


def _proposal(value: list[object]) -> Proposal:
    _, view, block, parent, nullifications, vote = fields(value, 6)
    if type(nullifications) is not list or len(nullifications) > MAX_NULLIFICATIONS:
        message = f"a proposal carries at most {MAX_NULLIFICATIONS} nullifications"
        raise MessageError(message)
    proposal = Proposal(
        number(view),
        _block(block),
        None if parent is None else Certificate.from_value(parent),
        tuple(Certificate.from_value(item) for item in nullifications),
        Vote.from_value(vote),
    )
    expected = (Kind.NOTARIZE, proposal.block.epoch, proposal.view, proposal.block.id)
    given = proposal.vote
    if (given.kind, given.epoch, given.view, given.block_id) != expected:
        message = "the vote in a proposal is not for its block and view"
        raise MessageError(message)
    return proposal


def _block(value: object) -> Block:
    if type(value) is not bytes:
        message = "a block travels as bytes"
        raise MessageError(message)
    return Block.decode(value)
