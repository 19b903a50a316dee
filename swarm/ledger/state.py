"""What the ledger holds: one frozen record a key, and `LedgerView`, the typed way to read them.

Each record is the canonical encoding of the list of its fields.
Keys are a letter, `/`, and what the record is of; numbers in keys are big endian, so that a scan is in order.

    a/ account   n/ name   v/ name version   t/ task   r/ current round   h/ settled round
    d/ dataset   s/ validators of an epoch   b/ who has a stake   e/ evidence that counted
    m/ head, money, params, workers, open tasks
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import cbor2

from storage import canonical
from storage.cid import Cid
from swarm.ledger.errors import LedgerError, UnknownEpochError
from swarm.ledger.genesis import Params

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Protocol

    class Reader(Protocol):
        """What this module asks of a view; `storage.state_store.View` is one."""

        @property
        def root(self) -> bytes:
            """The state root."""

        def get(self, key: bytes) -> bytes | None:
            """The value of a key."""

        def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
            """Keys and values below a prefix, in order."""


CHAIN_KEY = b"m/chain"
HEAD_KEY = b"m/head"
MONEY_KEY = b"m/money"
PARAMS_KEY = b"m/params"
WORKERS_KEY = b"m/workers"
OPEN_TASKS_KEY = b"m/open"
NO_CID = Cid(b"")
SCORE_REFUSED = -(2**40)
"""A score at or below this is a refusal: `SCORE_REFUSED - code`."""
MAX_SCORE = 2**40
REASON_LATE = "committed too late"
REASON_NEVER_REVEALED = "never revealed"
REASON_LATE_REVEAL = "revealed too late"


class Phase(IntEnum):
    """Where a round stands."""

    TRAIN = 1
    REVEAL = 2
    SCORE_COMMIT = 3
    SCORE_REVEAL = 4
    ATTEST = 5


class Outcome(IntEnum):
    """How a round ended."""

    MERGED = 1
    UNCHANGED = 2  # nobody improved the model by more than the tolerance
    NOT_REVEALED = 3  # commits, but no reveal
    NO_SCORES = 4  # under a quorum of weight revealed scores
    NO_QUORUM = 5  # no merged checkpoint found a quorum


class Refusal(IntEnum):
    """Why a validator gave a submission no score."""

    NOT_FOUND = 1  # the file was not fetched in time
    MALFORMED = 2
    WRONG_BASE = 3
    NOT_FINITE = 4
    WRONG_SHAPES = 5
    DUPLICATE = 6  # the same CID as one that was committed earlier

    @property
    def score(self) -> int:
        """The integer that says so in a score reveal."""
        return SCORE_REFUSED - int(self)

    @property
    def reason(self) -> str:
        """The words on the scoreboard."""
        return _REFUSAL_WORDS[self]


_REFUSAL_WORDS = {
    Refusal.NOT_FOUND: "file not found in time",
    Refusal.MALFORMED: "malformed file",
    Refusal.WRONG_BASE: "made from another base",
    Refusal.NOT_FINITE: "not finite",
    Refusal.WRONG_SHAPES: "wrong shapes",
    Refusal.DUPLICATE: "same as an earlier submission",
}


def refusal(score: int) -> Refusal | None:
    """The refusal that a score stands for, or None for a real score."""
    return Refusal(SCORE_REFUSED - score) if score <= SCORE_REFUSED else None


@dataclass(frozen=True, slots=True)
class Unbonding:
    """Stake or bond on its way out; slashable until then."""

    amount: int
    height: int  # from this height on it can be withdrawn


@dataclass(frozen=True, slots=True)
class Account:
    """What a key owns and does."""

    public_key: bytes
    balance: int = 0
    nonce: int = 0  # of its next transaction
    stake: int = 0
    unbonding: tuple[Unbonding, ...] = ()
    roles: tuple[str, ...] = ()  # sorted
    vrf_key: bytes = b""
    hardware: str = ""
    bond: int = 0  # locked while it is a worker
    registered: int = -1  # height at which it became a worker; -1: it is none
    earned: int = 0  # by training and validating, ever

    @property
    def held(self) -> int:
        """Everything it owns, locked or not."""
        return self.balance + self.stake + self.bond + sum(one.amount for one in self.unbonding)

    def pack(self) -> list[Any]:
        """Fields for the encoding; the key is not repeated."""
        return [
            self.balance,
            self.nonce,
            self.stake,
            [[one.amount, one.height] for one in self.unbonding],
            self.roles,
            self.vrf_key,
            self.hardware,
            self.bond,
            self.registered,
            self.earned,
        ]

    @classmethod
    def unpack(cls, public_key: bytes, value: list[Any]) -> Account:
        """The record from its fields."""
        balance, nonce, stake, unbonding, roles, *rest = value
        outgoing = tuple(Unbonding(*one) for one in unbonding)
        return cls(public_key, balance, nonce, stake, outgoing, tuple(roles), *rest)


@dataclass(frozen=True, slots=True)
class NameEntry:
    """A name's latest version."""

    name: str
    owner: bytes
    root: Cid
    version: int
    previous: Cid  # empty for version 0
    height: int
    task: bytes = b""  # the open task that alone may write it

    def pack(self) -> list[Any]:
        """Fields for the encoding."""
        return [
            self.name,
            self.owner,
            self.root,
            self.version,
            self.previous,
            self.height,
            self.task,
        ]

    @classmethod
    def decode(cls, data: bytes) -> NameEntry:
        """The record from the bytes under `name_key(name)`, as a proof carries them."""
        return cls(*_fields(data, 7))


@dataclass(frozen=True, slots=True)
class NameVersion:
    """One version of a name, kept for ever."""

    name: str
    version: int
    root: Cid
    previous: Cid
    height: int
    task: bytes = b""  # the task and round that made it, if one did
    round: int = 0

    def pack(self) -> list[Any]:
        """Fields for the encoding."""
        return [
            self.name,
            self.version,
            self.root,
            self.previous,
            self.height,
            self.task,
            self.round,
        ]

    @classmethod
    def decode(cls, data: bytes) -> NameVersion:
        """The record from the bytes under `name_key(name, version)`."""
        return cls(*_fields(data, 7))


@dataclass(frozen=True, slots=True)
class Dataset:
    """A published dataset."""

    root: Cid
    publisher: bytes
    size: int
    chunks: int
    licence: str
    height: int

    def pack(self) -> list[Any]:
        """Fields for the encoding."""
        return [self.root, self.publisher, self.size, self.chunks, self.licence, self.height]


@dataclass(frozen=True, slots=True)
class Phases:
    """How many blocks each phase of a round lasts at most."""

    train: int
    reveal: int
    score_commit: int
    score_reveal: int
    attest: int

    def of(self, phase: Phase) -> int:
        """The length of one phase."""
        return self.pack()[phase - 1]

    def pack(self) -> list[int]:
        """Fields for the encoding."""
        return [self.train, self.reveal, self.score_commit, self.score_reveal, self.attest]


@dataclass(frozen=True, slots=True)
class TaskState:
    """A task, open or closed; its id is the id of the transaction that posted it."""

    id: bytes
    poster: bytes
    name: str
    kind: str
    spec: bytes
    base: Cid  # when it was posted
    dataset: Cid
    pool: Cid
    rounds: int
    budget: int
    phases: Phases
    tolerance: int
    posted: int  # height
    escrow: int  # what is left of the budget
    done: int = 0  # rounds that ended, however they ended
    open: bool = True

    def pack(self) -> list[Any]:
        """Fields for the encoding; the id is not repeated."""
        return [
            self.poster,
            self.name,
            self.kind,
            self.spec,
            self.base,
            self.dataset,
            self.pool,
            self.rounds,
            self.budget,
            self.phases.pack(),
            self.tolerance,
            self.posted,
            self.escrow,
            self.done,
            self.open,
        ]

    @classmethod
    def unpack(cls, task: bytes, value: list[Any]) -> TaskState:
        """The record from its fields."""
        return cls(task, *value[:9], Phases(*value[9]), *value[10:])  # type: ignore[call-arg]


@dataclass(frozen=True, slots=True)
class Submission:
    """What a worker revealed."""

    worker: bytes
    root: Cid


@dataclass(frozen=True, slots=True)
class ScoreReveal:
    """What one validator found."""

    base_loss: int
    scores: tuple[int, ...]  # one a submission, in scoring order


@dataclass(frozen=True, slots=True)
class Accepted:
    """A submission that goes into the merge."""

    index: int  # in `RoundState.submissions`
    score: int  # the weighted median


@dataclass(frozen=True, slots=True)
class Attestation:
    """What one validator merged."""

    merged: Cid
    loss: int


@dataclass(frozen=True, slots=True)
class RoundState:
    """The current round of a task; mappings are by public key, in the order of the chain."""

    task: bytes
    number: int  # from 1
    attempt: int  # from 1; counts restarts after a TRAIN phase without commits
    phase: Phase
    phase_deadline: int  # the last height at which the phase's transactions count
    started: int  # height of the block whose beacon is `start_beacon`
    base: Cid
    version: int  # of the name, whose root is `base`
    start_beacon: bytes
    score_beacon: bytes = b""  # known from the first block after the reveals
    score_epoch: int = -1  # whose validators score this round; -1 until they do
    eligible: tuple[bytes, ...] = ()  # workers that TRAIN waits for, sorted
    commits: Mapping[bytes, bytes] = field(default_factory=dict)
    reveals: Mapping[bytes, Cid] = field(default_factory=dict)
    refused: Mapping[bytes, str] = field(default_factory=dict)
    submissions: tuple[Submission, ...] = ()  # scoring order, once REVEAL ended
    score_commits: Mapping[bytes, bytes] = field(default_factory=dict)
    score_reveals: Mapping[bytes, ScoreReveal] = field(default_factory=dict)
    base_loss: int = 0  # median, once SCORE_REVEAL ended
    medians: tuple[int, ...] = ()  # one a submission, once SCORE_REVEAL ended
    accepted: tuple[Accepted, ...] = ()  # by index, once SCORE_REVEAL ended
    attestations: Mapping[bytes, Attestation] = field(default_factory=dict)

    def pack(self) -> list[Any]:
        """Fields for the encoding; the task is not repeated."""
        return [
            self.number,
            self.attempt,
            int(self.phase),
            self.phase_deadline,
            self.started,
            self.base,
            self.version,
            self.start_beacon,
            self.score_beacon,
            self.score_epoch,
            self.eligible,
            [list(pair) for pair in self.commits.items()],
            [list(pair) for pair in self.reveals.items()],
            [list(pair) for pair in self.refused.items()],
            [[one.worker, one.root] for one in self.submissions],
            [list(pair) for pair in self.score_commits.items()],
            [[key, one.base_loss, one.scores] for key, one in self.score_reveals.items()],
            self.base_loss,
            self.medians,
            [[one.index, one.score] for one in self.accepted],
            [[key, one.merged, one.loss] for key, one in self.attestations.items()],
        ]

    @classmethod
    def unpack(cls, task: bytes, value: list[Any]) -> RoundState:
        """The record from its fields."""
        return cls(  # type: ignore[call-arg]  # counted by place
            task,
            *value[:2],
            Phase(value[2]),
            *value[3:10],
            tuple(value[10]),
            dict(value[11]),
            dict(value[12]),
            dict(value[13]),
            tuple(Submission(*one) for one in value[14]),
            dict(value[15]),
            {key: ScoreReveal(loss, tuple(scores)) for key, loss, scores in value[16]},
            value[17],
            tuple(value[18]),
            tuple(Accepted(*one) for one in value[19]),
            {key: Attestation(*rest) for key, *rest in value[20]},
        )


@dataclass(frozen=True, slots=True)
class SettledSubmission:
    """One line of the scoreboard."""

    worker: bytes
    root: Cid  # empty if it was never revealed
    score: int | None  # the weighted median; None where nobody could score
    accepted: bool
    reason: str  # why not, in words; empty if accepted
    payment: int


@dataclass(frozen=True, slots=True)
class SettledRound:
    """A round that ended, kept for ever."""

    task: bytes
    number: int
    attempt: int
    outcome: Outcome
    base: Cid
    merged: Cid  # the base, where the checkpoint did not change
    version: int  # of the name after this round
    base_loss: int | None
    merged_loss: int | None
    submissions: tuple[SettledSubmission, ...]
    validators: tuple[tuple[bytes, int], ...]  # (public key, what it was paid)
    started: int  # heights
    settled: int

    def pack(self) -> list[Any]:
        """Fields for the encoding; task and number are not repeated."""
        return [
            self.attempt,
            int(self.outcome),
            self.base,
            self.merged,
            self.version,
            self.base_loss,
            self.merged_loss,
            [
                [one.worker, one.root, one.score, one.accepted, one.reason, one.payment]
                for one in self.submissions
            ],
            [list(pair) for pair in self.validators],
            self.started,
            self.settled,
        ]

    @classmethod
    def unpack(cls, task: bytes, number: int, value: list[Any]) -> SettledRound:
        """The record from its fields."""
        return cls(  # type: ignore[call-arg]  # counted by place
            task,
            number,
            value[0],
            Outcome(value[1]),
            *value[2:7],
            tuple(SettledSubmission(*one) for one in value[7]),
            tuple((key, paid) for key, paid in value[8]),
            *value[9:],
        )


@dataclass(frozen=True, slots=True)
class Head:
    """What the next block builds on."""

    height: int
    beacon: bytes
    base_fee: int  # of the next block
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class Money:
    """Where the units are that no account holds."""

    genesis: int  # allocated and staked at the start
    emitted: int  # ever
    burned: int  # ever
    pool: int  # not emitted yet
    training: int  # set aside from the pool for the next settled round
    scoring: int  # likewise, for its validators
    treasury: int

    @property
    def supply(self) -> int:
        """What exists: genesis + emitted - burned."""
        return self.genesis + self.emitted - self.burned


@dataclass(frozen=True, slots=True)
class EpochValidator:
    """A validator as its epoch fixed it."""

    public_key: bytes
    vrf_key: bytes
    weight: int


@dataclass(frozen=True, slots=True)
class EpochSet:
    """Who decides in an epoch, and what draws its leaders."""

    epoch: int
    seed: bytes
    validators: tuple[EpochValidator, ...]  # by public key

    @property
    def weight(self) -> int:
        """All of it."""
        return sum(one.weight for one in self.validators)

    @property
    def quorum(self) -> int:
        """`floor(2W/3) + 1`."""
        return 2 * self.weight // 3 + 1

    def find(self, public_key: bytes) -> EpochValidator | None:
        """A validator by its key."""
        return next((one for one in self.validators if one.public_key == public_key), None)

    def weight_of(self, public_key: bytes) -> int:
        """Its weight; 0 for who is none."""
        one = self.find(public_key)
        return one.weight if one is not None else 0

    def pack(self) -> list[Any]:
        """Fields for the encoding; the epoch is not repeated."""
        return [self.seed, [[one.public_key, one.vrf_key, one.weight] for one in self.validators]]

    @classmethod
    def unpack(cls, epoch: int, value: list[Any]) -> EpochSet:
        """The record from its fields."""
        return cls(epoch, value[0], tuple(EpochValidator(*one) for one in value[1]))


def account_key(public_key: bytes) -> bytes:
    """Where an account stands."""
    return b"a/" + public_key


def name_key(name: str, version: int | None = None) -> bytes:
    """Where a name stands, or one of its versions: the raw key that a proof is about."""
    if version is None:
        return b"n/" + name.encode()
    return b"v/" + name.encode() + b"/" + version.to_bytes(8, "big")


def task_key(task: bytes) -> bytes:
    """Where a task stands."""
    return b"t/" + task


def round_key(task: bytes) -> bytes:
    """Where a task's current round stands."""
    return b"r/" + task


def history_key(task: bytes, number: int) -> bytes:
    """Where a round that ended stands."""
    return b"h/" + task + number.to_bytes(4, "big")


def dataset_key(root: bytes) -> bytes:
    """Where a dataset stands."""
    return b"d/" + root


def epoch_key(epoch: int) -> bytes:
    """Where the validators of an epoch stand."""
    return b"s/" + epoch.to_bytes(8, "big")


def staker_key(public_key: bytes) -> bytes:
    """Where it stands that an account has a stake."""
    return b"b/" + public_key


def evidence_key(public_key: bytes, epoch: int, view: int) -> bytes:
    """Where it stands that a validator was slashed for a view."""
    return b"e/" + public_key + epoch.to_bytes(8, "big") + view.to_bytes(8, "big")


def load(data: bytes) -> list[Any]:
    """Fields from a value of the state, which a root vouches for."""
    value: list[Any] = cbor2.loads(data)
    return value


def _fields(data: bytes, count: int) -> list[Any]:
    value = canonical.decode(data, max_bytes=4096)
    if type(value) is not list or len(value) != count:
        message = f"not a record of {count} fields"
        raise LedgerError(message)
    return value


class LedgerView:
    """The state at one height, typed; what every other room reads."""

    def __init__(self, view: Reader) -> None:
        self.raw = view

    @property
    def root(self) -> bytes:
        """The state root."""
        return self.raw.root

    @property
    def head(self) -> Head:
        """Height, beacon, base fee and time of the last block."""
        return Head(*self._need(HEAD_KEY))

    @property
    def height(self) -> int:
        """Of the last block."""
        return self.head.height

    @property
    def beacon(self) -> bytes:
        """Of the last block."""
        return self.head.beacon

    @property
    def base_fee(self) -> int:
        """Units a gas, in the next block."""
        return self.head.base_fee

    @property
    def params(self) -> Params:
        """The parameters."""
        return Params(*self._need(PARAMS_KEY))

    @property
    def epoch(self) -> int:
        """Of the last block; genesis counts as epoch 0."""
        return max(0, self.height - 1) // self.params.epoch_length

    def account(self, public_key: bytes) -> Account:
        """An account; one that nobody has used yet is all zero."""
        data = self.raw.get(account_key(public_key))
        return Account.unpack(public_key, load(data)) if data is not None else Account(public_key)

    def accounts(self) -> Iterator[Account]:
        """Every account, by key."""
        for key, data in self.raw.scan(b"a/"):
            yield Account.unpack(key[2:], load(data))

    def stakers(self) -> list[bytes]:
        """Accounts with a stake, by key."""
        return [key[2:] for key, _ in self.raw.scan(b"b/")]

    def workers(self) -> dict[bytes, int]:
        """Registered workers and the height at which each registered, by key."""
        return dict(self._need(WORKERS_KEY))

    def name(self, name: str) -> NameEntry | None:
        """A name's latest version."""
        data = self.raw.get(name_key(name))
        return NameEntry(*load(data)) if data is not None else None

    def names(self) -> list[NameEntry]:
        """Every name, in order."""
        return [NameEntry(*load(data)) for _, data in self.raw.scan(b"n/")]

    def name_version(self, name: str, version: int) -> NameVersion | None:
        """One version of a name."""
        data = self.raw.get(name_key(name, version)) if 0 <= version < 2**64 else None
        return NameVersion(*load(data)) if data is not None else None

    @staticmethod
    def name_key(name: str, version: int | None = None) -> bytes:
        """The raw key of a name or of one of its versions, for `prove`."""
        return name_key(name, version)

    def tasks(self) -> list[TaskState]:
        """Every task, open or closed, by id."""
        return [TaskState.unpack(key[2:], load(data)) for key, data in self.raw.scan(b"t/")]

    def task(self, task: bytes) -> TaskState | None:
        """A task by its id."""
        data = self.raw.get(task_key(task))
        return TaskState.unpack(task, load(data)) if data is not None else None

    def open_tasks(self) -> list[bytes]:
        """Ids of the tasks with a current round, oldest first."""
        return self._need(OPEN_TASKS_KEY)

    def round(self, task: bytes) -> RoundState | None:
        """The current round of a task; None once it is closed."""
        data = self.raw.get(round_key(task))
        return RoundState.unpack(task, load(data)) if data is not None else None

    def history(self, task: bytes) -> list[SettledRound]:
        """The rounds of a task that ended, in order."""
        return [
            SettledRound.unpack(task, int.from_bytes(key[-4:], "big"), load(data))
            for key, data in self.raw.scan(b"h/" + task)
        ]

    def validators(self, epoch: int) -> EpochSet:
        """Who decides in an epoch.

        Raises:
            UnknownEpochError: It is not fixed yet (it is, two epochs before).
        """
        data = self.raw.get(epoch_key(epoch)) if 0 <= epoch < 2**64 else None
        if data is None:
            message = f"the validators of epoch {epoch} are not fixed yet"
            raise UnknownEpochError(message)
        return EpochSet.unpack(epoch, load(data))

    def datasets(self) -> list[Dataset]:
        """Every dataset, by root."""
        return [Dataset(*load(data)) for _, data in self.raw.scan(b"d/")]

    def dataset(self, root: bytes) -> Dataset | None:
        """A dataset by its root."""
        data = self.raw.get(dataset_key(root))
        return Dataset(*load(data)) if data is not None else None

    def evidence_counted(self, public_key: bytes, epoch: int, view: int) -> bool:
        """Whether a validator was slashed for that view."""
        return self.raw.get(evidence_key(public_key, epoch, view)) is not None

    def money(self) -> Money:
        """Pool, buckets, treasury, and what was emitted and burned."""
        return Money(*self._need(MONEY_KEY))

    def supply(self) -> int:
        """Units that exist: genesis + emitted - burned."""
        return self.money().supply

    def _need(self, key: bytes) -> list[Any]:
        data = self.raw.get(key)
        if data is None:
            message = f"the state has no {key.decode()}: no genesis was applied"
            raise LedgerError(message)
        return load(data)
