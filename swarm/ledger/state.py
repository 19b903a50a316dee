"""The state as other rooms read it: `LedgerView`, one typed answer for each record.

Records stand in modules by subject (`holdings`, `names`, `tasks`, `keeping`), where they stand in `keys`; all are given on here.
Each record is the canonical encoding of the list of its fields.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import cbor2

from swarm.ledger import schedule
from swarm.ledger.errors import LedgerError, UnknownEpochError
from swarm.ledger.genesis import Params
from swarm.ledger.holdings import (
    Account,
    Conduct,
    EpochSet,
    EpochValidator,
    Head,
    Money,
    Unbonding,
)
from swarm.ledger.keeping import (
    Audit,
    AuditPhase,
    AuditState,
    Deal,
    Duty,
    Failure,
    Keeper,
    Piece,
    Report,
    Seat,
    Seats,
    Verdict,
)
from swarm.ledger.keys import (
    AUDIT_KEY,
    CHAIN_KEY,
    HEAD_KEY,
    KEEPERS_KEY,
    MISSED_KEY,
    MONEY_KEY,
    OPEN_DEALS_KEY,
    OPEN_REPLAYS_KEY,
    OPEN_TASKS_KEY,
    PARAMS_KEY,
    SCORED_KEY,
    SLASHED_KEY,
    WORKERS_KEY,
    account_key,
    answer_key,
    conduct_key,
    dataset_key,
    deal_key,
    epoch_key,
    evidence_key,
    history_key,
    jail_key,
    keeper_key,
    name_key,
    replay_key,
    report_key,
    round_key,
    seats_key,
    staker_key,
    strikes_key,
    task_key,
)
from swarm.ledger.names import (
    NO_CID,
    Dataset,
    NameEntry,
    NameVersion,
)
from swarm.ledger.replaying import Finding, Replay, Stage
from swarm.ledger.tasks import (
    MAX_SCORE,
    REASON_LATE,
    REASON_LATE_REVEAL,
    REASON_NEVER_REVEALED,
    SCORE_REFUSED,
    Accepted,
    Attestation,
    Outcome,
    Phase,
    Phases,
    Refusal,
    RoundState,
    ScoreReveal,
    SettledRound,
    SettledSubmission,
    Submission,
    TaskState,
    refusal,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "AUDIT_KEY",
    "CHAIN_KEY",
    "HEAD_KEY",
    "KEEPERS_KEY",
    "MAX_SCORE",
    "MISSED_KEY",
    "MONEY_KEY",
    "NO_CID",
    "OPEN_DEALS_KEY",
    "OPEN_REPLAYS_KEY",
    "OPEN_TASKS_KEY",
    "PARAMS_KEY",
    "REASON_LATE",
    "REASON_LATE_REVEAL",
    "REASON_NEVER_REVEALED",
    "SCORED_KEY",
    "SCORE_REFUSED",
    "SLASHED_KEY",
    "WORKERS_KEY",
    "Accepted",
    "Account",
    "Attestation",
    "Audit",
    "AuditPhase",
    "AuditState",
    "Conduct",
    "Dataset",
    "Deal",
    "Duty",
    "EpochSet",
    "EpochValidator",
    "Failure",
    "Finding",
    "Head",
    "Keeper",
    "LedgerView",
    "Money",
    "NameEntry",
    "NameVersion",
    "Outcome",
    "Params",
    "Phase",
    "Phases",
    "Piece",
    "Reader",
    "Refusal",
    "Replay",
    "Report",
    "RoundState",
    "ScoreReveal",
    "Seat",
    "Seats",
    "SettledRound",
    "SettledSubmission",
    "Stage",
    "Submission",
    "TaskState",
    "Unbonding",
    "Verdict",
    "account_key",
    "answer_key",
    "conduct_key",
    "dataset_key",
    "deal_key",
    "epoch_key",
    "evidence_key",
    "history_key",
    "jail_key",
    "keeper_key",
    "load",
    "name_key",
    "refusal",
    "replay_key",
    "report_key",
    "round_key",
    "seats_key",
    "staker_key",
    "strikes_key",
    "task_key",
]


class Reader(Protocol):
    """What this room asks of a view; `storage.state_store.View` is one."""

    @property
    def root(self) -> bytes:
        """The state root."""

    def get(self, key: bytes) -> bytes | None:
        """The value of a key."""

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values below a prefix, in order."""


def load(data: bytes) -> list[Any]:
    """Fields from a value of the state, which a root vouches for."""
    value: list[Any] = cbor2.loads(data)
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

    def settled(self, task: bytes, number: int) -> SettledRound | None:
        """One round of a task that ended."""
        data = self.raw.get(history_key(task, number)) if 0 < number < 2**32 else None
        return SettledRound.unpack(task, number, load(data)) if data is not None else None

    def replay(self, task: bytes, number: int, worker: bytes) -> Replay | None:
        """A submission that is or was run again; None for one that was not drawn."""
        key = replay_key(task, number, worker)
        data = self.raw.get(key)
        return Replay.unpack(key[2:], load(data)) if data is not None else None

    def replays(self) -> list[Replay]:
        """Submissions that are being run again, by key."""
        data = self.raw.get(OPEN_REPLAYS_KEY)
        keys = [bytes(key) for key, _ in load(data)] if data is not None else []
        return [Replay.unpack(key[2:], self._need(key)) for key in keys]

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

    def jailed_until(self, public_key: bytes) -> int | None:
        """The height from which a jailed validator may ask to be let out; None for one that is not jailed."""
        data = self.raw.get(jail_key(public_key))
        until: int | None = load(data)[0] if data is not None else None
        return until

    def conduct(self, public_key: bytes) -> Conduct:
        """How a validator scored lately."""
        data = self.raw.get(conduct_key(public_key))
        return Conduct(*load(data)) if data is not None else Conduct()

    # Keeping

    def keeper(self, public_key: bytes) -> Keeper | None:
        """What an account lends; None for one that lends nothing and has no strikes."""
        data = self.raw.get(keeper_key(public_key))
        return Keeper.unpack(public_key, load(data)) if data is not None else None

    def keepers(self) -> list[Keeper]:
        """Everyone that lends slots, by key."""
        found = (self.keeper(key) for key in self._need(KEEPERS_KEY))
        return [one for one in found if one is not None]

    def audit(self) -> AuditState | None:
        """The newest audit; None before the first."""
        data = self.raw.get(AUDIT_KEY)
        if data is None:
            return None
        one, params = Audit(*load(data)), self.params
        answers = {}
        for key in self._need(KEEPERS_KEY):
            said = self.raw.get(answer_key(key))
            if said is not None and (fields := load(said))[0] == one.number:
                answers[key] = fields[1]
        reported = frozenset(key[2:] for key, _ in self.raw.scan(b"p/"))
        until = schedule.answers_until(params, one.start)
        if one.settled >= 0:
            phase = AuditPhase.SETTLED
        else:
            phase = AuditPhase.REPORT if one.seed2 else AuditPhase.ANSWER
        return AuditState(
            one.number,
            one.start,
            until,
            schedule.reports_until(params, one.start),
            phase,
            one.seed,
            one.seed2,
            one.epoch,
            one.paid,
            answers,
            reported,
        )

    def deals(self) -> list[Deal]:
        """Every open deal, the oldest first."""
        found = (self.deal(one) for one in self._need(OPEN_DEALS_KEY))
        return [one for one in found if one is not None]

    def deal(self, deal: bytes) -> Deal | None:
        """An open deal by its id."""
        data = self.raw.get(deal_key(deal))
        return Deal.unpack(deal, load(data)) if data is not None else None

    def seats(self, deal: bytes) -> Seats | None:
        """Who keeps the pieces of an open deal."""
        data = self.raw.get(seats_key(deal))
        return Seats.unpack(deal, load(data)) if data is not None else None

    def duties_of(self, public_key: bytes) -> list[Duty]:
        """What a keeper has to hold, by deal and piece."""
        return [duty for key, duty in self.duties() if key == public_key]

    def duties(self) -> Iterator[tuple[bytes, Duty]]:
        """Every duty with its keeper, by deal and piece."""
        for deal in self.deals():
            seats = self.seats(deal.id)
            for at, taken in enumerate(seats.of if seats is not None else ()):
                piece = deal.pieces[at]
                for one in taken:
                    yield (
                        one.keeper,
                        Duty(deal.id, at, piece.root, piece.size, one.due, one.shown),
                    )

    def keepers_of(self, root: bytes) -> list[bytes]:
        """Who has the duty to hold a piece; those that showed it first."""
        found = {key: duty.shown for key, duty in self.duties() if duty.root == root}
        return sorted(found, key=lambda key: (not found[key], key))

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
