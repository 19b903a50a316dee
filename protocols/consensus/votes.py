"""Votes and certificates: what a validator signs, and when enough of them did.

signed      = [kind, chain_id, epoch, view, block_id] under the tag "swarm/vote/1"; a nullify names 32 zero bytes
certificate = [kind, epoch, view, block_id, [[index, signature], ...]], indices in the epoch's sorted set, increasing
Q           = floor(2 W / 3) + 1 of the total weight W
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final, TypeAlias

from protocols import signing
from protocols.consensus.blocks import HASH_BYTES, ZERO_HASH, decode, exactly, fields, number
from protocols.consensus.errors import MessageError
from storage import canonical

if TYPE_CHECKING:
    from collections.abc import Sequence

    from protocols.consensus.application import Validator

VOTE_TAG: Final = b"swarm/vote/1"
MAX_VALIDATORS: Final = 128
MAX_VOTE_BYTES: Final = 256
MAX_CERTIFICATE_BYTES: Final = 128 + MAX_VALIDATORS * 72


class Kind(IntEnum):
    """What a vote says about a view."""

    NOTARIZE = 1
    NULLIFY = 2
    FINALIZE = 3


def vote_kind(value: object) -> Kind:
    """A decoded value as a kind.

    Raises:
        MessageError: There is no such kind.
    """
    if type(value) is not int or not 1 <= value <= 3:
        message = "no such kind of vote"
        raise MessageError(message)
    return Kind(value)


def signed_bytes(kind: Kind, chain_id: bytes, epoch: int, view: int, block_id: bytes) -> bytes:
    """What a vote's signature covers, after its tag."""
    return canonical.encode([int(kind), chain_id, epoch, view, block_id])


@dataclass(frozen=True, slots=True)
class Vote:
    """One validator's word on one view."""

    kind: Kind
    epoch: int
    view: int
    block_id: bytes
    voter: bytes
    signature: bytes

    @classmethod
    def sign(
        cls,
        signer: signing.Signer,
        chain_id: bytes,
        kind: Kind,
        epoch: int,
        view: int,
        block_id: bytes = ZERO_HASH,
    ) -> Vote:
        """Make a vote; Ed25519 is deterministic, so the same vote has the same bytes."""
        signature = signer.sign(VOTE_TAG, signed_bytes(kind, chain_id, epoch, view, block_id))
        return cls(kind, epoch, view, block_id, signer.public_key, signature)

    def is_signed(self, chain_id: bytes) -> bool:
        """Whether the signature is the voter's."""
        body = signed_bytes(self.kind, chain_id, self.epoch, self.view, self.block_id)
        return signing.verify(self.voter, VOTE_TAG, body, self.signature)

    def to_value(self) -> list[object]:
        """As an array of a larger message."""
        return [int(self.kind), self.epoch, self.view, self.block_id, self.voter, self.signature]

    @classmethod
    def from_value(cls, value: object) -> Vote:
        """Read what `to_value` made.

        Raises:
            MessageError: Malformed.
        """
        items = fields(value, 6)
        vote = cls(
            vote_kind(items[0]),
            number(items[1]),
            number(items[2]),
            exactly(items[3], HASH_BYTES),
            exactly(items[4], signing.PUBLIC_KEY_BYTES),
            exactly(items[5], signing.SIGNATURE_BYTES),
        )
        _check_block_id(vote.kind, vote.block_id)
        return vote

    def encode(self) -> bytes:
        """Its canonical bytes."""
        return canonical.encode(self.to_value())

    @classmethod
    def decode(cls, data: bytes) -> Vote:
        """Read a vote.

        Raises:
            MessageError: Malformed.
        """
        return cls.from_value(decode(data, MAX_VOTE_BYTES))


@dataclass(frozen=True, slots=True)
class Certificate:
    """Votes of one kind on one view and block by at least Q of the weight.

    `signatures` are (index in the epoch's sorted validators, 64 bytes), indices strictly increasing.
    """

    kind: Kind
    epoch: int
    view: int
    block_id: bytes
    signatures: tuple[tuple[int, bytes], ...]

    def to_value(self) -> list[object]:
        """As an array of a larger message."""
        signatures = [[index, signature] for index, signature in self.signatures]
        return [int(self.kind), self.epoch, self.view, self.block_id, signatures]

    @classmethod
    def from_value(cls, value: object) -> Certificate:
        """Read what `to_value` made; who signed is not checked here.

        Raises:
            MessageError: Malformed.
        """
        items = fields(value, 5)
        kind = vote_kind(items[0])
        block_id = exactly(items[3], HASH_BYTES)
        _check_block_id(kind, block_id)
        if type(items[4]) is not list or not 0 < len(items[4]) <= MAX_VALIDATORS:
            message = f"a certificate has 1 to {MAX_VALIDATORS} signatures"
            raise MessageError(message)
        signatures = []
        last = -1
        for item in items[4]:
            index, signature = fields(item, 2)
            if not last < number(index) < MAX_VALIDATORS:
                message = "the signatures of a certificate are not in order"
                raise MessageError(message)
            last = index
            signatures.append((last, exactly(signature, signing.SIGNATURE_BYTES)))
        return cls(kind, number(items[1]), number(items[2]), block_id, tuple(signatures))

    def encode(self) -> bytes:
        """Its canonical bytes."""
        return canonical.encode(self.to_value())

    @classmethod
    def decode(cls, data: bytes) -> Certificate:
        """Read a certificate; who signed is not checked here.

        Raises:
            MessageError: Malformed.
        """
        return cls.from_value(decode(data, MAX_CERTIFICATE_BYTES))


Notarization: TypeAlias = Certificate
"""A certificate of kind NOTARIZE: the block may be built upon."""
Nullification: TypeAlias = Certificate
"""A certificate of kind NULLIFY: the view may be skipped."""
Finalization: TypeAlias = Certificate
"""A certificate of kind FINALIZE: the block and its ancestors are final."""


def quorum(total_weight: int) -> int:
    """The least weight of which any two sets share an honest voter, when under a third lie."""
    return 2 * total_weight // 3 + 1


def verify_certificate(
    certificate: Certificate, chain_id: bytes, validators: Sequence[Validator]
) -> bool:
    """Whether validators of at least Q of the weight signed it.

    Args:
        certificate: As decoded from anyone.
        chain_id: 32 bytes.
        validators: The sorted set of the certificate's epoch.
    """
    body = signed_bytes(
        certificate.kind, chain_id, certificate.epoch, certificate.view, certificate.block_id
    )
    last, weight = -1, 0
    for index, _ in certificate.signatures:
        if not last < index < len(validators):
            return False
        last = index
        weight += validators[index].weight
    if weight < quorum(sum(validator.weight for validator in validators)):
        return False
    return all(
        signing.verify(validators[index].public_key, VOTE_TAG, body, signature)
        for index, signature in certificate.signatures
    )


def _check_block_id(kind: Kind, block_id: bytes) -> None:
    if (kind is Kind.NULLIFY) != (block_id == ZERO_HASH):
        message = "a nullify names no block, other votes name one"
        raise MessageError(message)
