"""Transactions: what an account asks of the ledger, and its bytes.

    transaction = Ed25519 signature (64) || body
    body        = canonical [version, chain_id, public key, nonce, valid_until, max_fee, tip, gas, type, payload]

The signature is over the body under the tag `swarm/transaction/1`; the id is SHA-256 of the whole.
`valid_until` is the last height that may hold it; `max_fee` and `tip` are units a gas; `gas` is the most it may use.
Each payload is a list of fields, and each field is checked here, so that the rules see only values in bounds.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, get_args

from protocols import signing
from storage import canonical, cid
from storage.errors import CanonicalError, CidError
from swarm.ledger.errors import TransactionError
from swarm.ledger.genesis import CAP
from swarm.ledger.state import MAX_SCORE, SCORE_REFUSED, Refusal
from swarm.ledger.state import Phases as Phases  # part of a task, so given on

if TYPE_CHECKING:
    from collections.abc import Iterable

    from protocols.signing import Signer
    from storage.cid import Cid

VERSION = 1
TAG = b"swarm/transaction/1"
COMMIT_TAG = b"swarm/checkpoint-commit/1\x00"
SCORE_TAG = b"swarm/score-commit/1\x00"
MAX_TRANSACTION_BYTES = 32 * 2**10
MAX_HEIGHT = 2**53
MAX_FEE = 10**15
MAX_GAS = 10**12
MAX_SPEC_BYTES = 8192
MAX_HARDWARE = 64
MAX_LICENCE = 128
MAX_SUBMISSIONS = 256
"""Submissions in a round; a worker after that is told that the round is full."""
MAX_PHASE_BLOCKS = 1_000_000
MAX_ROUNDS = 100_000
MAX_TOLERANCE = 2**30
MAX_LOSS = 2**40
MAX_EVIDENCE_BYTES = 1024
MAX_FILE_BYTES = 2**60
SALT_BYTES = 32
ROLES = ("keeper", "reader", "validator", "worker")
KINDS = ("gan", "lm")
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
GAS_PER_BYTE = 16


@dataclass(frozen=True, slots=True)
class Transfer:
    """Give units to another account."""

    to: bytes
    amount: int

    TYPE: ClassVar[int] = 1
    GAS: ClassVar[int] = 21_000

    def check(self) -> None:
        _key(self.to)
        _int(self.amount, 0, CAP)


@dataclass(frozen=True, slots=True)
class Stake:
    """Bond units to become, or weigh more as, a validator."""

    amount: int

    TYPE: ClassVar[int] = 2
    GAS: ClassVar[int] = 21_000

    def check(self) -> None:
        _int(self.amount, 1, CAP)


@dataclass(frozen=True, slots=True)
class Unstake:
    """Take units out of the stake; they can be withdrawn after the unbonding time."""

    amount: int

    TYPE: ClassVar[int] = 3
    GAS: ClassVar[int] = 21_000

    def check(self) -> None:
        _int(self.amount, 1, CAP)


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Take back what has unbonded."""

    TYPE: ClassVar[int] = 4
    GAS: ClassVar[int] = 21_000

    def check(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Register:
    """Say what a node does; being a worker locks its bond, and ceasing to be one unbonds it."""

    vrf_key: bytes
    hardware: str
    roles: tuple[str, ...]

    TYPE: ClassVar[int] = 5
    GAS: ClassVar[int] = 50_000

    def check(self) -> None:
        _key(self.vrf_key)
        _text(self.hardware, 0, MAX_HARDWARE)
        if type(self.roles) is not tuple or any(role not in ROLES for role in self.roles):
            message = f"a role is one of {', '.join(ROLES)}"
            raise TransactionError(message)
        if list(self.roles) != sorted(set(self.roles)):
            message = "roles are sorted and each stands once"
            raise TransactionError(message)


@dataclass(frozen=True, slots=True)
class DatasetPublish:
    """Enter a dataset into the list."""

    root: Cid
    size: int  # bytes
    chunks: int
    licence: str

    TYPE: ClassVar[int] = 6
    GAS: ClassVar[int] = 50_000

    def check(self) -> None:
        _cid(self.root)
        _int(self.size, 0, MAX_FILE_BYTES)
        _int(self.chunks, 1, MAX_FILE_BYTES)
        _text(self.licence, 1, MAX_LICENCE)


@dataclass(frozen=True, slots=True)
class NameRegister:
    """Take a free name; its root is version 0."""

    name: str
    root: Cid

    TYPE: ClassVar[int] = 7
    GAS: ClassVar[int] = 50_000

    def check(self) -> None:
        _name(self.name)
        _cid(self.root)


@dataclass(frozen=True, slots=True)
class NameUpdate:
    """Write the next version of a name."""

    name: str
    root: Cid
    version: int
    previous: Cid

    TYPE: ClassVar[int] = 8
    GAS: ClassVar[int] = 50_000

    def check(self) -> None:
        _name(self.name)
        _cid(self.root)
        _int(self.version, 1, MAX_HEIGHT)
        _cid(self.previous)


@dataclass(frozen=True, slots=True)
class TaskPost:
    """Post a task; the budget moves into escrow."""

    name: str  # the model that its rounds write
    kind: str  # "lm" or "gan"
    spec: bytes  # TOML that the ledger does not read
    base: Cid
    dataset: Cid
    pool: Cid  # what the validation batches are drawn from
    rounds: int
    budget: int
    phases: Phases
    tolerance: int  # of a score

    TYPE: ClassVar[int] = 9
    GAS: ClassVar[int] = 200_000

    def check(self) -> None:
        _name(self.name)
        if self.kind not in KINDS:
            message = f"a kind is one of {', '.join(KINDS)}"
            raise TransactionError(message)
        _bytes(self.spec, 0, MAX_SPEC_BYTES)
        for root in (self.base, self.dataset, self.pool):
            _cid(root)
        _int(self.rounds, 1, MAX_ROUNDS)
        _int(self.budget, 0, CAP)
        for length in self.phases.pack():
            _int(length, 1, MAX_PHASE_BLOCKS)
        _int(self.tolerance, 0, MAX_TOLERANCE)


@dataclass(frozen=True, slots=True)
class CheckpointCommit:
    """Commit to a trained checkpoint without showing it."""

    task: bytes
    round: int
    hash: bytes  # `commit_hash`

    TYPE: ClassVar[int] = 10
    GAS: ClassVar[int] = 30_000

    def check(self) -> None:
        _round(self.task, self.round)
        _key(self.hash)


@dataclass(frozen=True, slots=True)
class CheckpointReveal:
    """Open a commit."""

    task: bytes
    round: int
    root: Cid
    salt: bytes

    TYPE: ClassVar[int] = 11
    GAS: ClassVar[int] = 30_000

    def check(self) -> None:
        _round(self.task, self.round)
        _cid(self.root)
        _key(self.salt)


@dataclass(frozen=True, slots=True)
class ScoreCommit:
    """Commit to scores without showing them."""

    task: bytes
    round: int
    hash: bytes  # `score_hash`

    TYPE: ClassVar[int] = 12
    GAS: ClassVar[int] = 30_000

    def check(self) -> None:
        _round(self.task, self.round)
        _key(self.hash)


@dataclass(frozen=True, slots=True)
class ScoreReveal:
    """Open a score commit."""

    task: bytes
    round: int
    base_loss: int
    scores: tuple[int, ...]  # one a submission, in scoring order
    salt: bytes

    TYPE: ClassVar[int] = 13
    GAS: ClassVar[int] = 40_000

    def check(self) -> None:
        _round(self.task, self.round)
        _int(self.base_loss, -MAX_LOSS, MAX_LOSS)
        if type(self.scores) is not tuple or len(self.scores) > MAX_SUBMISSIONS:
            message = f"at most {MAX_SUBMISSIONS} scores"
            raise TransactionError(message)
        for score in self.scores:
            _int(score, SCORE_REFUSED - max(Refusal), MAX_SCORE)
            if score == SCORE_REFUSED:
                message = "a refusal names its code"
                raise TransactionError(message)
        _key(self.salt)


@dataclass(frozen=True, slots=True)
class MergeAttest:
    """Say which checkpoint the accepted submissions merge to, and its loss."""

    task: bytes
    round: int
    merged: Cid
    loss: int

    TYPE: ClassVar[int] = 14
    GAS: ClassVar[int] = 30_000

    def check(self) -> None:
        _round(self.task, self.round)
        _cid(self.merged)
        _int(self.loss, -MAX_LOSS, MAX_LOSS)


@dataclass(frozen=True, slots=True)
class Evidence:
    """Two votes of one validator that contradict each other."""

    evidence: bytes  # of `protocols.consensus.evidence`

    TYPE: ClassVar[int] = 15
    GAS: ClassVar[int] = 100_000

    def check(self) -> None:
        _bytes(self.evidence, 1, MAX_EVIDENCE_BYTES)


Payload: TypeAlias = (
    Transfer
    | Stake
    | Unstake
    | Withdraw
    | Register
    | DatasetPublish
    | NameRegister
    | NameUpdate
    | TaskPost
    | CheckpointCommit
    | CheckpointReveal
    | ScoreCommit
    | ScoreReveal
    | MergeAttest
    | Evidence
)

_KINDS: dict[int, Any] = {kind.TYPE: kind for kind in get_args(Payload)}
PROTOCOL_TYPES = frozenset(
    kind.TYPE
    for kind in (
        CheckpointCommit,
        CheckpointReveal,
        ScoreCommit,
        ScoreReveal,
        MergeAttest,
        Evidence,
    )
)
"""What a share of each block is kept for: without it, rounds and slashing stop."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """A signed transaction whose signature and fields were checked."""

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
    tail = [payload.TYPE, _pack(payload)]
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
    if not signing.SIGNATURE_BYTES < len(data) <= MAX_TRANSACTION_BYTES:
        message = f"a transaction has 65 to {MAX_TRANSACTION_BYTES:,} bytes, this one {len(data):,}"
        raise TransactionError(message)
    body = data[signing.SIGNATURE_BYTES :]
    transaction = _parse(data, body)
    if not signing.verify(transaction.sender, TAG, body, data[: signing.SIGNATURE_BYTES]):
        message = "the signature is not the sender's"
        raise TransactionError(message)
    return transaction


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
        _int(version, VERSION, VERSION)
        _key(chain_id)
        _key(sender)
        _int(nonce, 0, MAX_HEIGHT)
        _int(valid_until, 0, MAX_HEIGHT)
        _int(max_fee, 0, MAX_FEE)
        _int(tip, 0, max_fee)
        _int(gas, 0, MAX_GAS)
        _int(kind, 1, max(_KINDS))
        parsed = _unpack(kind, payload)
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


def _pack(payload: Payload) -> list[Any]:
    values = [getattr(payload, name) for name in payload.__slots__]
    return [value.pack() if isinstance(value, Phases) else value for value in values]


def _unpack(kind: int, values: object) -> Payload:
    of = _KINDS[kind]
    if type(values) is not list or len(values) != len(of.__slots__):
        message = f"a payload of type {kind} has {len(of.__slots__)} fields"
        raise TransactionError(message)
    if of is TaskPost:
        lengths = values[8]
        if type(lengths) is not list or len(lengths) != 5:
            message = "a task has five phases"
            raise TransactionError(message)
        values[8] = Phases(*lengths)
    payload: Payload = of(*(tuple(one) if type(one) is list else one for one in values))
    payload.check()
    return payload


def _int(value: object, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        message = f"{value!r:.40} is not an integer from {low} to {high}"
        raise TransactionError(message)


def _bytes(value: object, low: int, high: int) -> None:
    if type(value) is not bytes or not low <= len(value) <= high:
        message = f"a field is not {low} to {high} bytes"
        raise TransactionError(message)


def _key(value: object) -> None:
    if type(value) is not bytes or len(value) != 32:
        message = "a key, hash, salt or id is not 32 bytes"
        raise TransactionError(message)


def _text(value: object, low: int, high: int) -> None:
    if type(value) is not str or not low <= len(value) <= high or not _plain(value):
        message = f"a text is not {low} to {high} printable ASCII characters"
        raise TransactionError(message)


def _plain(value: str) -> bool:
    # ASCII only: what else is printable depends on the Unicode tables of a Python version.
    return value.isascii() and value.isprintable()


def _cid(value: object) -> None:
    if type(value) is not bytes:
        message = "a CID is bytes"
        raise TransactionError(message)
    try:
        cid.from_bytes(value)
    except CidError as error:
        raise TransactionError(str(error)) from error


def _name(value: object) -> None:
    if type(value) is not str or NAME.fullmatch(value) is None:
        message = "a name is 1 to 63 of a-z, 0-9 and -, and does not begin with -"
        raise TransactionError(message)


def _round(task: object, number: object) -> None:
    _key(task)
    _int(number, 1, MAX_ROUNDS)
