"""What a transaction asks for: one payload a type, each a list of fields that are checked here.

So the rules see only values in bounds; whether they hold in the state is theirs to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, get_args

from swarm.ledger.errors import TransactionError
from swarm.ledger.fields import (
    check_bytes,
    check_cid,
    check_int,
    check_key,
    check_name,
    check_rising,
    check_text,
    rows,
    tuples,
)
from swarm.ledger.genesis import CAP
from swarm.ledger.keeping import MAX_PIECES, MAX_REPLICAS, MAX_SEATS, Failure
from swarm.ledger.replaying import MAX_DISTANCE, MAX_PROOF, PROOF_SIZE, Finding
from swarm.ledger.tasks import MAX_SCORE, SCORE_REFUSED, Phases, Refusal

if TYPE_CHECKING:
    from storage.cid import Cid

MAX_HEIGHT = 2**53
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
MAX_SLOTS = 2**32
"""4 PiB lent by one key."""
MAX_AUDITS = 2**32
MAX_DEAL_AUDITS = 2**20
MAX_FAILED = 512
"""Keepers that one report names."""
MAX_MISSING = 128
"""Pieces of keepers that one report names: with `MAX_FAILED`, what fits into a transaction."""
ROLES = ("keeper", "reader", "validator", "worker")
KINDS = ("classifier", "finetune", "gan", "gan-mean", "lm")


@dataclass(frozen=True, slots=True)
class Transfer:
    """Give units to another account."""

    to: bytes
    amount: int

    TYPE: ClassVar[int] = 1
    GAS: ClassVar[int] = 21_000

    def check(self) -> None:
        check_key(self.to)
        check_int(self.amount, 0, CAP)


@dataclass(frozen=True, slots=True)
class Stake:
    """Bond units to become, or weigh more as, a validator."""

    amount: int

    TYPE: ClassVar[int] = 2
    GAS: ClassVar[int] = 21_000

    def check(self) -> None:
        check_int(self.amount, 1, CAP)


@dataclass(frozen=True, slots=True)
class Unstake:
    """Take units out of the stake; they can be withdrawn after the unbonding time."""

    amount: int

    TYPE: ClassVar[int] = 3
    GAS: ClassVar[int] = 21_000

    def check(self) -> None:
        check_int(self.amount, 1, CAP)


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
        check_key(self.vrf_key)
        check_text(self.hardware, 0, MAX_HARDWARE)
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
        check_cid(self.root)
        check_int(self.size, 0, MAX_FILE_BYTES)
        check_int(self.chunks, 1, MAX_FILE_BYTES)
        check_text(self.licence, 1, MAX_LICENCE)


@dataclass(frozen=True, slots=True)
class NameRegister:
    """Take a free name; its root is version 0."""

    name: str
    root: Cid

    TYPE: ClassVar[int] = 7
    GAS: ClassVar[int] = 50_000

    def check(self) -> None:
        check_name(self.name)
        check_cid(self.root)


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
        check_name(self.name)
        check_cid(self.root)
        check_int(self.version, 1, MAX_HEIGHT)
        check_cid(self.previous)


@dataclass(frozen=True, slots=True)
class TaskPost:
    """Post a task; the budget moves into escrow."""

    name: str  # the model that its rounds write
    kind: str  # one of `KINDS`; of a "gan" a round takes the best alone
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
        check_name(self.name)
        if self.kind not in KINDS:
            message = f"a kind is one of {', '.join(KINDS)}"
            raise TransactionError(message)
        check_bytes(self.spec, 0, MAX_SPEC_BYTES)
        for root in (self.base, self.dataset, self.pool):
            check_cid(root)
        check_int(self.rounds, 1, MAX_ROUNDS)
        check_int(self.budget, 0, CAP)
        for length in self.phases.pack():
            check_int(length, 1, MAX_PHASE_BLOCKS)
        check_int(self.tolerance, 0, MAX_TOLERANCE)


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
        check_key(self.hash)


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
        check_cid(self.root)
        check_key(self.salt)


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
        check_key(self.hash)


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
        check_int(self.base_loss, -MAX_LOSS, MAX_LOSS)
        if type(self.scores) is not tuple or len(self.scores) > MAX_SUBMISSIONS:
            message = f"at most {MAX_SUBMISSIONS} scores"
            raise TransactionError(message)
        for score in self.scores:
            check_int(score, SCORE_REFUSED - max(Refusal), MAX_SCORE)
            if score == SCORE_REFUSED:
                message = "a refusal names its code"
                raise TransactionError(message)
        check_key(self.salt)


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
        check_cid(self.merged)
        check_int(self.loss, -MAX_LOSS, MAX_LOSS)


@dataclass(frozen=True, slots=True)
class Evidence:
    """Two votes of one validator that contradict each other."""

    evidence: bytes  # of `protocols.consensus.evidence`

    TYPE: ClassVar[int] = 15
    GAS: ClassVar[int] = 100_000

    def check(self) -> None:
        check_bytes(self.evidence, 1, MAX_EVIDENCE_BYTES)


@dataclass(frozen=True, slots=True)
class CapacityCommit:
    """Say what this keeper lends: so many sealed slots under one root; 0 slots takes all back."""

    root: bytes
    slots: int

    TYPE: ClassVar[int] = 16
    GAS: ClassVar[int] = 100_000

    def check(self) -> None:
        check_key(self.root)
        check_int(self.slots, 0, MAX_SLOTS)


@dataclass(frozen=True, slots=True)
class CapacityAnswer:
    """Commit to the drawn leaves of an audit: the Merkle root over their bytes, in the order drawn."""

    audit: int
    root: bytes

    TYPE: ClassVar[int] = 17
    GAS: ClassVar[int] = 20_000

    def check(self) -> None:
        check_int(self.audit, 1, MAX_AUDITS)
        check_key(self.root)


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What an auditor found; a keeper or piece that it was drawn for and does not name was in order."""

    audit: int
    failed: tuple[tuple[bytes, int], ...]  # (keeper, `Failure`), by keeper
    missing: tuple[tuple[bytes, bytes, int], ...]  # (keeper, deal, piece), sorted

    TYPE: ClassVar[int] = 18
    GAS: ClassVar[int] = 100_000

    def check(self) -> None:
        check_int(self.audit, 1, MAX_AUDITS)
        for one in rows(self.failed, 2, MAX_FAILED):
            check_key(one[0])
            check_int(one[1], min(Failure), max(Failure))
        for one in rows(self.missing, 3, MAX_MISSING):
            check_key(one[0])
            check_key(one[1])
            check_int(one[2], 0, MAX_PIECES - 1)
        check_rising([one[:1] for one in self.failed])
        check_rising(self.missing)


@dataclass(frozen=True, slots=True)
class KeepPost:
    """Ask that pieces be kept; what all of it costs for all its audits moves into escrow."""

    pieces: tuple[tuple[Cid, int], ...]  # (root, bytes)
    replicas: int
    audits: int
    price: int  # units a GiB begun and audit, for each piece and replica
    recipe: Cid  # how the pieces make the whole; empty where each is a whole

    TYPE: ClassVar[int] = 19
    GAS: ClassVar[int] = 300_000

    def check(self) -> None:
        for root, size in rows(self.pieces, 2, MAX_PIECES):
            check_cid(root)
            check_int(size, 1, MAX_FILE_BYTES)
        if len({root for root, _ in self.pieces}) != len(self.pieces) or not self.pieces:
            message = "a deal has pieces, and each root stands once"
            raise TransactionError(message)
        check_int(self.replicas, 1, MAX_REPLICAS)
        if len(self.pieces) * self.replicas > MAX_SEATS:
            message = f"at most {MAX_SEATS} pieces, replicas counted"
            raise TransactionError(message)
        check_int(self.audits, 1, MAX_DEAL_AUDITS)
        check_int(self.price, 1, CAP)
        if self.recipe != b"":
            check_cid(self.recipe)


@dataclass(frozen=True, slots=True)
class KeepEnd:
    """Stop a deal of one's own: it ends with the next settlement, and the rest of the escrow returns."""

    deal: bytes

    TYPE: ClassVar[int] = 20
    GAS: ClassVar[int] = 30_000

    def check(self) -> None:
        check_key(self.deal)


@dataclass(frozen=True, slots=True)
class Unjail:
    """Ask to be a validator again, once the time in jail is over."""

    TYPE: ClassVar[int] = 21
    GAS: ClassVar[int] = 21_000

    def check(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class ReplaySeal:
    """That a segment of a submission was run again, by one that was drawn to do it: a seal on what came of it."""

    task: bytes
    round: int
    worker: bytes
    seal: bytes  # `replaying.seal_of`

    TYPE: ClassVar[int] = 23
    GAS: ClassVar[int] = 30_000

    def check(self) -> None:
        _round(self.task, self.round)
        check_key(self.worker)
        check_key(self.seal)


@dataclass(frozen=True, slots=True)
class ReplayFinding:
    """What came of running a segment of a submission again, as it was sealed."""

    task: bytes
    round: int
    worker: bytes
    finding: int  # `Finding`
    distance: int  # parts of a million; 0 where there is none
    proof: tuple[int, ...]  # of having run it: `PROOF_SIZE` numbers; none where it was withheld
    salt: bytes

    TYPE: ClassVar[int] = 22
    GAS: ClassVar[int] = 30_000

    def check(self) -> None:
        _round(self.task, self.round)
        check_key(self.worker)
        check_int(self.finding, min(Finding), max(Finding))
        check_int(self.distance, 0, MAX_DISTANCE)
        size = 0 if self.finding == Finding.WITHHELD else PROOF_SIZE
        if type(self.proof) is not tuple or len(self.proof) != size:
            message = f"a proof of having run a segment has {size} numbers here"
            raise TransactionError(message)
        for one in self.proof:
            check_int(one, -MAX_PROOF, MAX_PROOF)
        check_key(self.salt)


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
    | CapacityCommit
    | CapacityAnswer
    | AuditReport
    | KeepPost
    | KeepEnd
    | Unjail
    | ReplayFinding
    | ReplaySeal
)

TYPES: dict[int, Any] = {kind.TYPE: kind for kind in get_args(Payload)}
PROTOCOL_TYPES = frozenset(
    kind.TYPE
    for kind in (
        CheckpointCommit,
        CheckpointReveal,
        ScoreCommit,
        ScoreReveal,
        MergeAttest,
        Evidence,
        CapacityAnswer,
        AuditReport,
        ReplayFinding,
        ReplaySeal,
    )
)
"""What a share of each block is kept for: without it, rounds, audits and slashing stop."""


def pack(payload: Payload) -> list[Any]:
    """The fields of a payload, for the encoding."""
    values = [getattr(payload, name) for name in payload.__slots__]
    return [value.pack() if isinstance(value, Phases) else value for value in values]


def unpack(kind: int, values: object) -> Payload:
    """A payload from its fields, checked.

    Args:
        kind: One of `TYPES`.
        values: A stranger's.

    Raises:
        TransactionError: Not the fields of that type, or one is out of its bounds.
    """
    of = TYPES[kind]
    if type(values) is not list or len(values) != len(of.__slots__):
        message = f"a payload of type {kind} has {len(of.__slots__)} fields"
        raise TransactionError(message)
    if of is TaskPost:
        lengths = values[8]
        if type(lengths) is not list or len(lengths) != 5:
            message = "a task has five phases"
            raise TransactionError(message)
        values[8] = Phases(*lengths)
    payload: Payload = of(*map(tuples, values))
    payload.check()
    return payload


def _round(task: object, number: object) -> None:
    check_key(task)
    check_int(number, 1, MAX_ROUNDS)
