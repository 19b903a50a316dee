"""The state while a block runs: records read once, changed in place of memory, encoded once at the end.

A transaction that fails is rolled back: each change notes what stood there before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from storage import canonical
from swarm.ledger import state
from swarm.ledger.genesis import Params
from swarm.ledger.holdings import Slashed, Slashings
from swarm.ledger.replaying import Replay
from swarm.ledger.state import (
    Account,
    Audit,
    Conduct,
    Dataset,
    Deal,
    EpochSet,
    Head,
    Keeper,
    Money,
    NameEntry,
    NameVersion,
    Report,
    RoundState,
    Seats,
    SettledRound,
    TaskState,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from swarm.ledger.state import Reader

T = TypeVar("T")
_UNREAD = object()
_FLAT = (Head, Money, Params)


class Draft:
    """Typed records over a view; nothing is written to the view."""

    def __init__(self, view: Reader) -> None:
        self._view = view
        self._records: dict[bytes, Any] = {}
        self._changed: set[bytes] = set()
        self._undo: list[tuple[bytes, Any]] = []

    def keep(self) -> None:
        """What was changed stays."""
        self._undo.clear()

    def roll_back(self) -> None:
        """Take back every change since the last `keep`."""
        for key, record in reversed(self._undo):
            if record is _UNREAD:
                del self._records[key]
            else:
                self._records[key] = record
        self._undo.clear()

    def changes(self) -> dict[bytes, bytes | None]:
        """What differs from the view, encoded, by key."""
        found: dict[bytes, bytes | None] = {}
        for key in sorted(self._changed & self._records.keys()):
            record = self._records[key]
            data = None if record is None else canonical.encode(_fields(record))
            if data != self._view.get(key):
                found[key] = data
        return found

    @property
    def chain_id(self) -> bytes:
        """SHA-256 of the genesis."""
        return self._need(state.CHAIN_KEY, lambda value: bytes(value[0]))

    @property
    def params(self) -> Params:
        """The parameters."""
        return self._need(state.PARAMS_KEY, lambda value: Params(*value))

    @property
    def head(self) -> Head:
        """Of the block before, until the end of this one."""
        return self._need(state.HEAD_KEY, lambda value: Head(*value))

    @property
    def money(self) -> Money:
        """Pool, buckets, treasury, emitted and burned."""
        return self._need(state.MONEY_KEY, lambda value: Money(*value))

    @property
    def workers(self) -> dict[bytes, int]:
        """Registered workers and their heights; not to be changed in place."""
        return self._need(state.WORKERS_KEY, dict)

    @property
    def open_tasks(self) -> tuple[bytes, ...]:
        """Ids, oldest first."""
        return self._need(state.OPEN_TASKS_KEY, tuple)

    @property
    def slashed(self) -> tuple[Slashed, ...]:
        """Who was slashed lately, in the order of the chain."""
        found = self._get(state.SLASHED_KEY, Slashings.unpack)
        return found.of if found is not None else ()

    @property
    def scored(self) -> dict[bytes, int]:
        """What bonded workers earned of emission in this epoch, by key; not to be changed in place."""
        found: dict[bytes, int] | None = self._get(state.SCORED_KEY, dict)
        return found if found is not None else {}

    @property
    def missed(self) -> dict[bytes, int]:
        """How many views each leader missed in this epoch, by key; not to be changed in place."""
        found: dict[bytes, int] | None = self._get(state.MISSED_KEY, dict)
        return found if found is not None else {}

    @property
    def keepers(self) -> tuple[bytes, ...]:
        """Who lends slots, by key."""
        return self._need(state.KEEPERS_KEY, tuple)

    @property
    def audit(self) -> Audit | None:
        """The newest audit; None before the first."""
        return self._get(state.AUDIT_KEY, lambda value: Audit(*value))

    @property
    def open_deals(self) -> tuple[bytes, ...]:
        """Ids, oldest first."""
        return self._need(state.OPEN_DEALS_KEY, tuple)

    @property
    def open_replays(self) -> dict[bytes, int]:
        """When each submission that is run again is looked at next, by key; not to be changed in place."""
        found: dict[bytes, int] | None = self._get(state.OPEN_REPLAYS_KEY, dict)
        return found if found is not None else {}

    def account(self, public_key: bytes) -> Account:
        """An account, zero if it is new."""
        found = self._get(
            state.account_key(public_key), lambda value: Account.unpack(public_key, value)
        )
        return found if found is not None else Account(public_key)

    def name(self, name: str) -> NameEntry | None:
        """A name's latest version."""
        return self._get(state.name_key(name), lambda value: NameEntry(*value))

    def task(self, task: bytes) -> TaskState | None:
        """A task."""
        return self._get(state.task_key(task), lambda value: TaskState.unpack(task, value))

    def round(self, task: bytes) -> RoundState | None:
        """A task's current round."""
        return self._get(state.round_key(task), lambda value: RoundState.unpack(task, value))

    def settled(self, task: bytes, number: int) -> SettledRound | None:
        """A round that ended."""
        return self._get(
            state.history_key(task, number), lambda value: SettledRound.unpack(task, number, value)
        )

    def replay(self, task: bytes, number: int, worker: bytes) -> Replay | None:
        """A submission that is or was run again."""
        return self.replay_at(state.replay_key(task, number, worker))

    def replay_at(self, key: bytes) -> Replay | None:
        """The same, by its key."""
        return self._get(key, lambda value: Replay.unpack(key[2:], value))

    def strikes(self, worker: bytes) -> int:
        """How often a worker withheld what it had recorded."""
        found: list[int] | None = self._get(state.strikes_key(worker), list)
        return found[0] if found is not None else 0

    def dataset(self, root: bytes) -> Dataset | None:
        """A dataset."""
        return self._get(state.dataset_key(root), lambda value: Dataset(*value))

    def epoch_set(self, epoch: int) -> EpochSet:
        """The validators of an epoch, which must be fixed by now."""
        return self._need(state.epoch_key(epoch), lambda value: EpochSet.unpack(epoch, value))

    def evidence_counted(self, key: bytes) -> bool:
        """Whether a validator was slashed for a view, by `state.evidence_key`."""
        return self._get(key, lambda value: value) is not None

    def jailed_until(self, public_key: bytes) -> int | None:
        """From which height a jailed validator may leave; None for one that is not jailed."""
        found: list[int] | None = self._get(state.jail_key(public_key), list)
        return found[0] if found is not None else None

    def conduct(self, public_key: bytes) -> Conduct:
        """How a validator scored lately."""
        found = self._get(state.conduct_key(public_key), lambda value: Conduct(*value))
        return found if found is not None else Conduct()

    def keeper(self, public_key: bytes) -> Keeper | None:
        """What an account lends."""
        return self._get(
            state.keeper_key(public_key), lambda value: Keeper.unpack(public_key, value)
        )

    def answer(self, public_key: bytes, audit: int) -> bytes | None:
        """A keeper's answer to an audit; what stands there may be of an older one."""
        found: tuple[int, bytes] | None = self._get(
            state.answer_key(public_key), lambda value: (value[0], value[1])
        )
        return found[1] if found is not None and found[0] == audit else None

    def report(self, public_key: bytes) -> Report | None:
        """A validator's report on the running audit."""
        return self._get(state.report_key(public_key), Report.unpack)

    def deal(self, deal: bytes) -> Deal | None:
        """An open deal."""
        return self._get(state.deal_key(deal), lambda value: Deal.unpack(deal, value))

    def seats(self, deal: bytes) -> Seats | None:
        """Who keeps the pieces of an open deal."""
        return self._get(state.seats_key(deal), lambda value: Seats.unpack(deal, value))

    def stakers(self) -> list[bytes]:
        """Accounts with a stake, by key."""
        found = {key for key, _ in self._view.scan(b"b/")}
        for key in self._changed & self._records.keys():
            if key.startswith(b"b/"):
                (found.discard if self._records[key] is None else found.add)(key)
        return sorted(key[2:] for key in found)

    def put_chain_id(self, chain_id: bytes) -> None:
        """Only genesis does."""
        self.put(state.CHAIN_KEY, [chain_id])

    def put_params(self, params: Params) -> None:
        """Only genesis does."""
        self.put(state.PARAMS_KEY, params)

    def put_head(self, head: Head) -> None:
        """Replace the head."""
        self.put(state.HEAD_KEY, head)

    def put_money(self, money: Money) -> None:
        """Replace the money."""
        self.put(state.MONEY_KEY, money)

    def put_workers(self, workers: dict[bytes, int]) -> None:
        """Replace the workers."""
        self.put(state.WORKERS_KEY, dict(sorted(workers.items())))

    def put_open_tasks(self, tasks: tuple[bytes, ...]) -> None:
        """Replace the list of open tasks."""
        self.put(state.OPEN_TASKS_KEY, tasks)

    def put_account(self, account: Account) -> None:
        """Replace an account, and whether it has a stake."""
        before = self.account(account.public_key)
        self.put(state.account_key(account.public_key), account)
        if (before.stake > 0) != (account.stake > 0):
            self.put(state.staker_key(account.public_key), [True] if account.stake else None)

    def put_name(self, entry: NameEntry, number: int = 0) -> None:
        """Write a name's latest version, and keep the version.

        Args:
            entry: As it stands from now on.
            number: The round that made it, or 0.
        """
        self.put(state.name_key(entry.name), entry)
        task = entry.task if number else b""
        version = NameVersion(
            entry.name, entry.version, entry.root, entry.previous, entry.height, task, number
        )
        self.put(state.name_key(entry.name, entry.version), version)

    def bind_name(self, entry: NameEntry) -> None:
        """Change who may write a name, and nothing else."""
        self.put(state.name_key(entry.name), entry)

    def put_task(self, task: TaskState) -> None:
        """Replace a task."""
        self.put(state.task_key(task.id), task)

    def put_round(self, current: RoundState) -> None:
        """Replace a task's current round."""
        self.put(state.round_key(current.task), current)

    def drop_round(self, task: bytes) -> None:
        """The task is closed."""
        self.put(state.round_key(task), None)

    def put_history(self, settled: SettledRound) -> None:
        """Keep a round that ended."""
        self.put(state.history_key(settled.task, settled.number), settled)

    def put_replay(self, one: Replay, due: int | None) -> None:
        """Replace a submission that is run again, and when it is looked at next; None: it is over."""
        key = state.replay_key(one.task, one.round, one.worker)
        others = {other: at for other, at in self.open_replays.items() if other != key}
        if due is not None:
            others[key] = due
        self.put(state.OPEN_REPLAYS_KEY, dict(sorted(others.items())) or None)
        self.put(key, one)

    def put_strikes(self, worker: bytes, strikes: int) -> None:
        """Replace a worker's strikes."""
        self.put(state.strikes_key(worker), [strikes] if strikes else None)

    def put_dataset(self, dataset: Dataset) -> None:
        """Enter a dataset."""
        self.put(state.dataset_key(dataset.root), dataset)

    def put_epoch_set(self, epoch_set: EpochSet) -> None:
        """Fix an epoch."""
        self.put(state.epoch_key(epoch_set.epoch), epoch_set)

    def put_slashed(self, slashed: tuple[Slashed, ...]) -> None:
        """Replace who was slashed lately."""
        self.put(state.SLASHED_KEY, Slashings(slashed) if slashed else None)

    def put_scored(self, scored: dict[bytes, int]) -> None:
        """Replace what bonded workers earned in this epoch."""
        self.put(state.SCORED_KEY, dict(sorted(scored.items())) or None)

    def put_missed(self, missed: dict[bytes, int]) -> None:
        """Replace how many views each leader missed in this epoch."""
        self.put(state.MISSED_KEY, dict(sorted(missed.items())) or None)

    def put_jailed(self, public_key: bytes, until: int | None) -> None:
        """Jail a validator, or let it out."""
        self.put(state.jail_key(public_key), None if until is None else [until])

    def put_conduct(self, public_key: bytes, conduct: Conduct) -> None:
        """Note how a validator scored; a clean record is none."""
        self.put(state.conduct_key(public_key), None if conduct == Conduct() else conduct)

    def put_keeper(self, keeper: Keeper) -> None:
        """Replace a keeper, and whether it lends: one that left with a clean record is forgotten."""
        key = keeper.public_key
        known = key in self.keepers
        if known != (keeper.slots > 0):
            others = (one for one in self.keepers if one != key)
            self.put(state.KEEPERS_KEY, tuple(sorted((*others, *[key] * (not known)))))
        if keeper.slots or keeper.strikes or keeper.suspended:
            self.put(state.keeper_key(key), keeper)
        else:
            self.put(state.keeper_key(key), None)
        if not keeper.slots and self._get(state.answer_key(key), tuple) is not None:
            self.put(state.answer_key(key), None)

    def put_no_keepers(self) -> None:
        """Only genesis does."""
        self.put(state.KEEPERS_KEY, ())

    def put_answer(self, public_key: bytes, audit: int, root: bytes) -> None:
        """Note a keeper's answer."""
        self.put(state.answer_key(public_key), (audit, root))

    def put_audit(self, audit: Audit) -> None:
        """Replace the newest audit."""
        self.put(state.AUDIT_KEY, audit)

    def put_report(self, public_key: bytes, report: Report | None) -> None:
        """Note a validator's report, or forget it."""
        self.put(state.report_key(public_key), report)

    def put_open_deals(self, deals: tuple[bytes, ...]) -> None:
        """Replace the list of open deals."""
        self.put(state.OPEN_DEALS_KEY, deals)

    def put_deal(self, deal: Deal) -> None:
        """Replace a deal."""
        self.put(state.deal_key(deal.id), deal)

    def put_seats(self, seats: Seats) -> None:
        """Replace who keeps the pieces of a deal."""
        self.put(state.seats_key(seats.deal), seats)

    def drop_deal(self, deal: bytes) -> None:
        """The deal is over."""
        self.put(state.deal_key(deal), None)
        self.put(state.seats_key(deal), None)

    def put_evidence(self, key: bytes) -> None:
        """Note that it counted."""
        self.put(key, [True])

    def put(self, key: bytes, record: object) -> None:
        """Replace a record; None removes it."""
        self._undo.append((key, self._records.get(key, _UNREAD)))
        self._records[key] = record
        self._changed.add(key)

    def _need(self, key: bytes, unpack: Callable[[list[Any]], T]) -> T:
        found = self._get(key, unpack)
        if found is None:
            message = f"the state has no {key!r}"
            raise LookupError(message)
        return found

    def _get(self, key: bytes, unpack: Callable[[list[Any]], T]) -> T | None:
        if key in self._records:
            known: T | None = self._records[key]
            return known
        data = self._view.get(key)
        record = None if data is None else unpack(state.load(data))
        self._records[key] = record
        return record


def _fields(record: Any) -> Any:  # noqa: ANN401 - any record of the ledger
    if isinstance(record, (list, tuple)):
        return record
    if isinstance(record, dict):
        return [list(pair) for pair in record.items()]
    if isinstance(record, _FLAT):
        return [getattr(record, name) for name in record.__slots__]
    return record.pack()
