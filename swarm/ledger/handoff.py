"""How trust in one epoch's validators is handed on to the next: one header an epoch, and no block.

    hand-off = [header, finalization, [set of the next epoch, proof], [set of the one after it, proof]]

The header is that of an epoch's last block, which is always finalized by itself. Its state root commits to the sets of
the two epochs that follow, so who trusts it can check the headers at the end of both.
`Trust` is what a node knows at a moment: the sets of an epoch and of the one after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from protocols.consensus.application import Validator
from protocols.consensus.errors import MessageError
from protocols.consensus.messages import Certificate, Header, Kind, verify_certificate
from protocols.sync.errors import CheckpointError
from storage import canonical
from storage.errors import CanonicalError
from storage.state_tree import verify_proof
from swarm.ledger.keys import epoch_key
from swarm.ledger.state import EpochSet, load

if TYPE_CHECKING:
    from protocols.consensus.messages import Block
    from storage.state_store import View
    from swarm.ledger.checkpoint import Checkpoint

MAX_HANDOFF_BYTES: Final = 64 * 2**10
WEAK_SUBJECTIVITY_MS: Final = 14 * 24 * 3600 * 1000
"""How old a header may be that a node trusts for no other reason than that it was once final.

Who signed it may have taken its stake back since, and lose nothing by signing another history.
"""


@dataclass(frozen=True, slots=True)
class Trust:
    """The voters of an epoch and of the next one, and when the header was made that fixed them."""

    epoch: int
    sets: tuple[EpochSet, EpochSet]
    timestamp_ms: int

    def follow(self, handoff: Handoff, chain_id: bytes, epoch_length: int) -> Trust:
        """Take the hand-off of `epoch`.

        Raises:
            MessageError: It is another epoch's, or its voters did not sign it, or a set is not proven.
        """
        handoff.check_place(self.epoch, chain_id, epoch_length)
        if not is_final(handoff.header, handoff.finalization, self.sets[0]):
            message = f"the finalization of block {handoff.header.height} does not hold"
            raise MessageError(message)
        return handoff.trusted()


@dataclass(frozen=True, slots=True)
class Handoff:
    """An epoch's last header, its finalization, and the sets that its state fixes."""

    header: Header
    finalization: Certificate
    values: tuple[bytes, bytes]
    proofs: tuple[bytes, bytes]

    @classmethod
    def of(cls, block: Block, finalization: bytes, view: View) -> Handoff:
        """Make it from an epoch's last block and the state after it."""
        keys = [epoch_key(block.epoch + ahead) for ahead in (1, 2)]
        first, second = (view.get(key) or b"" for key in keys)
        proofs = (view.prove(keys[0]), view.prove(keys[1]))
        return cls(block.header, Certificate.decode(finalization), (first, second), proofs)

    def encode(self) -> bytes:
        """Its canonical bytes."""
        pairs = [[value, proof] for value, proof in zip(self.values, self.proofs, strict=True)]
        return canonical.encode([self.header.encode(), self.finalization.encode(), *pairs])

    @classmethod
    def decode(cls, data: bytes) -> Handoff:
        """Read one; nothing of it is checked yet.

        Raises:
            MessageError: Malformed.
        """
        try:
            value: Any = canonical.decode(data, max_bytes=MAX_HANDOFF_BYTES)
        except CanonicalError as error:
            raise MessageError(str(error)) from error
        match value:
            case [
                bytes(header),
                bytes(finalization),
                [bytes(first), bytes(first_proof)],
                [bytes(second), bytes(second_proof)],
            ]:
                return cls(
                    Header.decode(header),
                    Certificate.decode(finalization),
                    (first, second),
                    (first_proof, second_proof),
                )
        message = "a hand-off is a header, a finalization and two sets with their proofs"
        raise MessageError(message)

    def check_place(self, epoch: int, chain_id: bytes, epoch_length: int) -> None:
        """Whether the header is the one at the end of an epoch of this chain.

        Raises:
            MessageError: It is not.
        """
        header = self.header
        place = (header.chain_id, header.epoch, header.height)
        if place != (chain_id, epoch, (epoch + 1) * epoch_length):
            message = f"block {header.height} does not end epoch {epoch} of this chain"
            raise MessageError(message)

    def sets(self) -> tuple[EpochSet, EpochSet]:
        """The sets of the next two epochs, checked against the header's state root.

        Raises:
            MessageError: They are not what it commits to.
        """
        found: list[EpochSet] = []
        for ahead, value, proof in zip((1, 2), self.values, self.proofs, strict=True):
            epoch = self.header.epoch + ahead
            if not verify_proof(self.header.state_root, epoch_key(epoch), value, proof):
                message = f"the validators of epoch {epoch} are not those of the state root"
                raise MessageError(message)
            found.append(EpochSet.unpack(epoch, load(value)))
        return found[0], found[1]

    def trusted(self) -> Trust:
        """What follows from a header that is trusted already.

        Raises:
            MessageError: The sets are not what it commits to.
        """
        return Trust(self.header.epoch + 1, self.sets(), self.header.timestamp_ms)

    def check_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Whether this is the block that the person was given.

        Raises:
            CheckpointError: It is another one.
        """
        if self.header.id != checkpoint.block_id:
            raise contradiction(checkpoint, self.header.id, "a peer")


def handoff_key(epoch: int) -> bytes:
    """Under what a node notes a hand-off."""
    return b"handoff/" + epoch.to_bytes(8, "big")


def is_final(header: Header, finalization: Certificate, voters: EpochSet) -> bool:
    """Whether a header was finalized by itself, by the voters of its epoch."""
    validators = [Validator(one.public_key, one.weight) for one in voters.validators]
    return (
        finalization.kind is Kind.FINALIZE
        and finalization.epoch == header.epoch
        and finalization.block_id == header.id
        and verify_certificate(finalization, header.chain_id, validators)
    )


def contradiction(checkpoint: Checkpoint, found: bytes, whose: str) -> CheckpointError:
    """The error, with what to do."""
    message = (
        f"the checkpoint says that block {checkpoint.height:,} is {checkpoint.block_id.hex()}, "
        f"{whose} has {found.hex()} there: ask somebody you trust for the checkpoint again; "
        "if it is right, leave that chain and start with peers and a --home of the other"
    )
    return CheckpointError(message)
