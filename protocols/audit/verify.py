"""The checks of an auditor: pure, against what the ledger says and nothing that the keeper claims."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from protocols.audit.draw import answer_root, leaf_index
from protocols.audit.errors import AuditFailedError, Failure
from storage.errors import StorageError
from storage.sealing import SLOT_LEAVES, slot_key, unseal
from storage.slot_tree import Label, holds, slot_root, verify_label, verify_leaf

if TYPE_CHECKING:
    from protocols.audit.messages import LeafAnswer, SlotAnswer


@dataclass(frozen=True, slots=True)
class Commitment:
    """What a keeper had committed to when the audit began.

    Attributes:
        keeper: Its public key, 32 bytes.
        root: Over its labels.
        slots: How many.
    """

    keeper: bytes
    root: bytes
    slots: int


@dataclass(frozen=True, slots=True)
class Sealing:
    """How slots are sealed on a chain.

    Attributes:
        chain_id: 32 bytes.
        log_n: The genesis' `seal_log_n`.
        passes: The genesis' `seal_passes`.
    """

    chain_id: bytes
    log_n: int
    passes: int


class LeafCheck:
    """The drawn leaves of one keeper, checked as they come.

    Args:
        commitment: What it had committed to.
        seed: The audit's.
        count: The chain's `audit_leaves`.
        answer: The root that the keeper answered on the ledger.
    """

    def __init__(self, commitment: Commitment, seed: bytes, count: int, answer: bytes) -> None:
        self._commitment = commitment
        self._seed = seed
        self._count = count
        self._answer = answer
        self._leaves: list[bytes] = []

    def take(self, told: LeafAnswer) -> None:
        """Check the next leaf.

        Raises:
            AuditFailedError: It does not stand under the committed root where the draw says.
        """
        kept = self._commitment
        previous = self._leaves[-1] if self._leaves else b""
        index = leaf_index(self._seed, kept.keeper, len(self._leaves), previous, kept.slots)
        slot, number = divmod(index, SLOT_LEAVES)
        label = _label(kept, slot, told.label, told.path)
        if not verify_leaf(label.root, told.leaf, number, told.inner):
            why = f"leaf {number} of slot {slot} is not under its label"
            raise AuditFailedError(Failure.NO_PATH, why)
        self._leaves.append(told.leaf)

    def finish(self) -> None:
        """Check that they were all, and those that the keeper answered with.

        Raises:
            AuditFailedError: They were not.
        """
        if len(self._leaves) != self._count:
            why = f"{len(self._leaves)} leaves where {self._count} were drawn"
            raise AuditFailedError(Failure.OTHER_LEAVES, why)
        if answer_root(self._leaves) != self._answer:
            why = "the leaves are not those of the answer on the ledger"
            raise AuditFailedError(Failure.OTHER_LEAVES, why)


def check_slot(commitment: Commitment, slot: int, told: SlotAnswer, sealing: Sealing) -> Label:
    """Check a whole slot down to its content; about 0.1 s of one core.

    Args:
        commitment: What the keeper had committed to.
        slot: Which slot was asked for.
        told: The answer.
        sealing: How slots are sealed on this chain.

    Returns:
        What the slot holds.

    Raises:
        AuditFailedError: It does not stand under the committed root, or unsealed it is not what its label names.
    """
    label = _label(commitment, slot, told.label, told.path)
    if slot_root(told.sealed) != label.root:
        raise AuditFailedError(Failure.NO_PATH, f"slot {slot} is not under its label")
    key = slot_key(commitment.keeper, sealing.chain_id, slot, sealing.log_n, label.named)
    if not holds(label, unseal(key, told.sealed, sealing.passes)):
        raise AuditFailedError(Failure.OTHER_CONTENT, f"slot {slot} unseals to something else")
    return label


def _label(commitment: Commitment, slot: int, encoded: bytes, path: list[bytes]) -> Label:
    if not verify_label(commitment.root, commitment.slots, encoded, slot, path):
        why = f"the label of slot {slot} is not under the committed root"
        raise AuditFailedError(Failure.NO_PATH, why)
    try:
        return Label.decode(encoded)
    except StorageError as error:
        raise AuditFailedError(Failure.OTHER_CONTENT, str(error)) from error
