"""Transactions: what an account asks of the ledger, and its bytes.

    transaction = Ed25519 signature (64) || body
    body        = canonical [version, chain_id, public key, nonce, valid_until, max_fee, tip, gas, type, payload]

The signature is over the body under the tag `swarm/transaction/1`; the id is SHA-256 of the whole.
`valid_until` is the last height that may hold it; `max_fee` and `tip` are units a gas; `gas` is the most it may use.
Each payload is a list of fields, and each field is checked before a rule sees it (`payloads`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from protocols import signing
from storage import canonical
from storage.errors import CanonicalError
from swarm.ledger import payloads
from swarm.ledger.errors import TransactionError
from swarm.ledger.fields import check_int, check_key
from swarm.ledger.payloads import (
    MAX_HEIGHT,
    MAX_SUBMISSIONS,
    PROTOCOL_TYPES,
    AuditReport,
    CapacityAnswer,
    CapacityCommit,
    CheckpointCommit,
    CheckpointReveal,
    DatasetPublish,
    Evidence,
    KeepEnd,
    KeepPost,
    MergeAttest,
    NameRegister,
    NameUpdate,
    Payload,
    Register,
    ReplayFinding,
    ReplaySeal,
    ScoreCommit,
    ScoreReveal,
    Stake,
    TaskPost,
    Transfer,
    Unjail,
    Unstake,
    Withdraw,
)
from swarm.ledger.tasks import Phases

if TYPE_CHECKING:
    from collections.abc import Iterable

    from protocols.signing import Signer
    from storage.cid import Cid

__all__ = [
    "GAS_PER_BYTE",
    "MAX_FEE",
    "MAX_GAS",
    "MAX_HEIGHT",
    "MAX_SUBMISSIONS",
    "MAX_TRANSACTION_BYTES",
    "PROTOCOL_TYPES",
    "SALT_BYTES",
    "TAG",
    "VERSION",
    "AuditReport",
    "CapacityAnswer",
    "CapacityCommit",
    "CheckpointCommit",
    "CheckpointReveal",
    "DatasetPublish",
    "Evidence",
    "KeepEnd",
    "KeepPost",
    "MergeAttest",
    "NameRegister",
    "NameUpdate",
    "Payload",
    "Phases",
    "Register",
    "ReplayFinding",
    "ReplaySeal",
    "ScoreCommit",
    "ScoreReveal",
    "Stake",
    "TaskPost",
    "Transaction",
    "Transfer",
    "Unjail",
    "Unstake",
    "Withdraw",
    "commit_hash",
    "decode",
    "parse",
    "score_hash",
    "sign",
    "transaction_id",
    "verify",
]

VERSION = 1
TAG = b"swarm/transaction/1"
COMMIT_TAG = b"swarm/checkpoint-commit/1\x00"
SCORE_TAG = b"swarm/score-commit/1\x00"
MAX_TRANSACTION_BYTES = 32 * 2**10
MAX_FEE = 10**15
MAX_GAS = 10**12
SALT_BYTES = 32
GAS_PER_BYTE = 16


@dataclass(frozen=True, slots=True)
class Transaction:
    """A signed transaction whose fields were checked, and where it was not only parsed its signature."""

    id: bytes
    data: bytes
    chain_id: bytes
    sender: bytes
    nonce: int
    valid_until: int
    max_fee: int
    tip: int
    gas: int
    payload: Payload

    @property
    def gas_used(self) -> int:
        """What it pays for: by its type and its bytes, known before it runs."""
        return self.payload.GAS + GAS_PER_BYTE * len(self.data)

    def tip_at(self, base_fee: int) -> int:
        """Units a gas for the leader; negative if it does not even pay the base fee."""
        return min(self.tip, self.max_fee - base_fee)


def sign(
    signer: Signer,
    chain_id: bytes,
    nonce: int,
    payload: Payload,
    *,
    valid_until: int,
    max_fee: int = 0,
    tip: int = 0,
    gas: int | None = None,
) -> bytes:
    """Make the bytes of a transaction.

    Args:
        signer: Whose account pays and acts.
        chain_id: SHA-256 of the genesis.
        nonce: The account's next.
        payload: What is asked.
        valid_until: The last height that may hold it.
        max_fee: Units a gas at most, tip and base fee together.
        tip: Units a gas for the leader.
        gas: The most it may use; left out, what it needs.

    Raises:
        TransactionError: A field is out of bounds.
    """
    payload.check()
    fields = [VERSION, chain_id, signer.public_key, nonce, valid_until, max_fee, tip]
    tail = [payload.TYPE, payloads.pack(payload)]
    if gas is None:
        longest = len(canonical.encode([*fields, MAX_GAS, *tail])) + signing.SIGNATURE_BYTES
        gas = payload.GAS + GAS_PER_BYTE * longest
    body = canonical.encode([*fields, gas, *tail])
    data = signer.sign(TAG, body) + body
    _parse(data, body)
    return data


def decode(data: bytes) -> Transaction:
    """Read and check a transaction: form, bounds and signature, nothing of the state.

    Raises:
        TransactionError: Anything is wrong.
    """
    transaction = parse(data)
    verify(transaction)
    return transaction


def parse(data: bytes) -> Transaction:
    """Read a transaction and check all but its signature, which costs more than the rest.

    Raises:
        TransactionError: Form or bounds are wrong.
    """
    if not signing.SIGNATURE_BYTES < len(data) <= MAX_TRANSACTION_BYTES:
        message = f"a transaction has 65 to {MAX_TRANSACTION_BYTES:,} bytes, this one {len(data):,}"
        raise TransactionError(message)
    return _parse(data, data[signing.SIGNATURE_BYTES :])


def verify(transaction: Transaction) -> None:
    """Check the signature of what `parse` read.

    Raises:
        TransactionError: It is not the sender's.
    """
    signature, body = (
        transaction.data[: signing.SIGNATURE_BYTES],
        transaction.data[signing.SIGNATURE_BYTES :],
    )
    if not signing.verify(transaction.sender, TAG, body, signature):
        message = "the signature is not the sender's"
        raise TransactionError(message)


def transaction_id(data: bytes) -> bytes:
    """SHA-256 of the bytes."""
    return hashlib.sha256(data).digest()


def commit_hash(root: Cid, worker: bytes, salt: bytes) -> bytes:
    """What a worker commits to; its key is in it, so a copied commit opens for nobody else."""
    return hashlib.sha256(COMMIT_TAG + root + worker + salt).digest()


def score_hash(
    task: bytes,
    number: int,
    validator: bytes,
    base_loss: int,
    scores: Iterable[int],
    salt: bytes,
) -> bytes:
    """What a validator commits to."""
    body = canonical.encode([task, number, validator, base_loss, list(scores), salt])
    return hashlib.sha256(SCORE_TAG + body).digest()


def _parse(data: bytes, body: bytes) -> Transaction:
    try:
        fields = canonical.decode(body, max_bytes=MAX_TRANSACTION_BYTES)
        if type(fields) is not list or len(fields) != 10:
            message = "the body is not a list of ten fields"
            raise TransactionError(message)
        version, chain_id, sender, nonce, valid_until, max_fee, tip, gas, kind, payload = fields
        check_int(version, VERSION, VERSION)
        check_key(chain_id)
        check_key(sender)
        check_int(nonce, 0, MAX_HEIGHT)
        check_int(valid_until, 0, MAX_HEIGHT)
        check_int(max_fee, 0, MAX_FEE)
        check_int(tip, 0, max_fee)
        check_int(gas, 0, MAX_GAS)
        check_int(kind, 1, max(payloads.TYPES))
        parsed = payloads.unpack(kind, payload)
        transaction = Transaction(
            hashlib.sha256(data).digest(),
            data,
            chain_id,
            sender,
            nonce,
            valid_until,
            max_fee,
            tip,
            gas,
            parsed,
        )
    except (CanonicalError, TypeError, ValueError) as error:
        if isinstance(error, TransactionError):
            raise
        message = f"not a transaction: {error}"
        raise TransactionError(message) from error
    if transaction.gas < transaction.gas_used:
        message = f"it uses {transaction.gas_used:,} gas and allows {gas:,}"
        raise TransactionError(message)
    return transaction
