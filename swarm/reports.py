"""What a node tells about the ledger, as plain values ready for JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from protocols import signing
from storage import cid
from swarm.errors import NotFoundError
from swarm.ledger import transactions
from swarm.ledger.errors import LedgerError
from swarm.ledger.state import SettledRound, history_key, load

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from protocols.consensus.messages import Block
    from storage.cid import Cid
    from swarm.ledger.application import LedgerApplication
    from swarm.ledger.state import LedgerView, RoundState, TaskState

Json = dict[str, Any]

LOSS_UNITS = 10**5
"""Losses and scores on the ledger are in 10^-5."""
MAX_VERSIONS = 1_000
"""Earlier versions among which the one is looked for that a version brings back."""
MAX_LOOKED_AT = 64
"""Rounds in which a task's first or newest loss is looked for."""


def root_text(root: Cid) -> str | None:
    """A CID as text; None where there is none."""
    return cid.text(root) if root else None


def roles(view: LedgerView, public_key: bytes) -> list[str]:
    """What an account is: what it registered as, and a validator only with a stake that makes it one."""
    account = view.account(public_key)
    found = set(account.roles)
    try:
        weight = view.validators(view.epoch).weight_of(public_key)
    except LedgerError:  # the validators of this epoch are not fixed yet
        weight = 0
    if weight:
        found.add("validator")
    elif account.stake < max(1, view.params.min_bond):
        found.discard("validator")
    return sorted(found)


def loss_of(units: int | None) -> float | None:
    """A loss in nats; None where there is none."""
    return None if units is None else units / LOSS_UNITS


def block_summary(block: Block, transactions_in: int) -> Json:
    """One block in a list."""
    return {
        "height": block.height,
        "id": block.id.hex(),
        "view": block.view,
        "epoch": block.epoch,
        "leader": signing.peer_id(block.leader) if block.leader else None,
        "time_ms": block.timestamp_ms,
        "transactions": transactions_in,
        "state_root": block.state_root.hex(),
        "bytes": len(block.payload),
    }


def transaction_report(ledger: LedgerApplication, data: bytes) -> Json:
    """One transaction of a finalized block."""
    try:
        one = transactions.decode(data)
    except LedgerError as fault:
        return {"id": transactions.transaction_id(data).hex(), "ok": False, "error": str(fault)}
    included = ledger.included(one.id)
    error = included.error if included is not None else ""
    return {
        "id": one.id.hex(),
        "from": signing.peer_id(one.sender),
        "type": type_of(one),
        "gas": one.gas_used,
        "ok": not error,
        "error": error or None,
    }


def type_of(one: transactions.Transaction) -> str:
    """A transaction's type in words."""
    return _snake(type(one.payload).__name__)


def task_summary(view: LedgerView, task: TaskState) -> Json:
    """One task in a list."""
    round_ = view.round(task.id)
    entry = view.name(task.name)
    return {
        "task": task.id.hex(),
        "name": task.name,
        "kind": task.kind,
        "poster": signing.peer_id(task.poster),
        "open": task.open,
        "round": round_.number if round_ else task.done,
        "rounds": task.rounds,
        "phase": round_.phase.name.lower() if round_ else "closed",
        "blocks_left": max(0, round_.phase_deadline - view.height) if round_ else 0,
        "version": entry.version if entry else 0,
        "loss": newest_loss(view, task),
        "first_loss": first_loss(view, task),
        "budget": task.budget,
        "escrow": task.escrow,
        "dataset": root_text(task.dataset),
        "pool": root_text(task.pool),
        "base": root_text(task.base),
    }


def find_task(view: LedgerView, text: str) -> TaskState:
    """The task of an id or a name; of several with a name the open one, else the newest.

    Raises:
        NotFoundError: There is none.
    """
    matching = [one for one in view.tasks() if text in {one.name, one.id.hex()}]
    if not matching:
        message = f"no task is called {text[:80]!r} at height {view.height:,}"
        raise NotFoundError(message, "`swarm tasks` lists them")
    return max(matching, key=lambda one: (one.open, one.posted))


def task_behind(view: LedgerView, name: str, number: int) -> TaskState | None:
    """The task whose model a version is: it made it, began with it, or made what the version brings back.

    Of a version that a person made of something else it is the newest task of the name; None where there is none.
    """
    tasks = sorted((one for one in view.tasks() if one.name == name), key=lambda one: one.posted)
    version = view.name_version(name, number)
    if version is None:
        return tasks[-1] if tasks else None
    for earlier in range(number, max(-1, number - MAX_VERSIONS), -1):
        one = view.name_version(name, earlier)
        if one is not None and one.root == version.root and one.task:
            return view.task(one.task)
    began = [one for one in tasks if one.base == version.root]
    return next(iter((began or tasks)[-1:]), None)


def newest_loss(view: LedgerView, task: TaskState) -> float | None:
    """The loss of the newest version, as its validators attested it."""
    numbers = range(task.done, max(0, task.done - MAX_LOOKED_AT), -1)
    losses = (one.merged_loss for one in _rounds(view, task, numbers))
    return loss_of(next((one for one in losses if one is not None), None))


def first_loss(view: LedgerView, task: TaskState) -> float | None:
    """The loss of the first round's base, as its validators scored it."""
    numbers = range(1, min(task.done, MAX_LOOKED_AT) + 1)
    losses = (one.base_loss for one in _rounds(view, task, numbers))
    return loss_of(next((one for one in losses if one is not None), None))


def _rounds(view: LedgerView, task: TaskState, numbers: Iterable[int]) -> Iterator[SettledRound]:
    """Rounds that ended, one read each: a task may have a hundred thousand."""
    for number in numbers:
        data = view.raw.get(history_key(task.id, number))
        if data is not None:
            yield SettledRound.unpack(task.id, number, load(data))


def scoreboard(view: LedgerView, task: TaskState) -> Json:
    """Every round of a task, the current one last."""
    rounds = [_settled(one) for one in view.history(task.id)]
    current = view.round(task.id)
    if current is not None:
        rounds.append(_current(current))
    return {"task": task.id.hex(), "name": task.name, "open": task.open, "rounds": rounds}


def rounds(view: LedgerView, task: TaskState, numbers: Iterable[int]) -> Iterator[Json]:
    """Rounds of a task that ended, by their numbers and as in the scoreboard."""
    for one in _rounds(view, task, numbers):
        yield _settled(one)


def current_round(view: LedgerView, task: TaskState) -> list[Json]:
    """The round that runs, as in the scoreboard; empty once the task is closed."""
    current = view.round(task.id)
    return [] if current is None else [_current(current)]


def _settled(one: SettledRound) -> Json:
    return {
        "round": one.number,
        "attempt": one.attempt,
        "outcome": one.outcome.name.lower(),
        "version": one.version,
        "root": root_text(one.merged),
        "base_loss": loss_of(one.base_loss),
        "loss": loss_of(one.merged_loss),
        "blocks": one.settled - one.started,
        "height": one.settled,
        "submissions": [
            {
                "worker": signing.peer_id(entry.worker),
                "root": root_text(entry.root),
                "score": _score(entry.score),
                "accepted": entry.accepted,
                "reason": entry.reason or None,
                "paid": entry.payment,
            }
            for entry in one.submissions
        ],
        "validators": [
            {"account": signing.peer_id(key), "paid": paid} for key, paid in one.validators
        ],
    }


def _current(round_: RoundState) -> Json:
    scores = dict(enumerate(round_.medians))
    accepted = {one.index for one in round_.accepted}
    submissions = [
        {
            "worker": signing.peer_id(one.worker),
            "root": root_text(one.root),
            "score": _score(scores.get(index)),
            "accepted": index in accepted if round_.medians else None,
            "reason": None,
            "paid": 0,
        }
        for index, one in enumerate(round_.submissions)
    ]
    if not submissions:
        submissions = [
            {
                "worker": signing.peer_id(worker),
                "root": root_text(round_.reveals[worker]) if worker in round_.reveals else None,
                "score": None,
                "accepted": None,
                "reason": None,
                "paid": 0,
            }
            for worker in round_.commits
        ]
    return {
        "round": round_.number,
        "attempt": round_.attempt,
        "outcome": round_.phase.name.lower(),
        "version": round_.version,
        "root": root_text(round_.base),
        "base_loss": loss_of(round_.base_loss) if round_.medians else None,
        "loss": None,
        "blocks": None,
        "height": None,
        "submissions": submissions,
        "validators": [],
    }


def _score(score: int | None) -> float | None:
    """A score as a fraction; None for a refusal, whose reason stands beside it."""
    return None if score is None or score <= -LOSS_UNITS * 1000 else score / LOSS_UNITS


def _snake(name: str) -> str:
    return "".join("_" + letter.lower() if letter.isupper() else letter for letter in name).lstrip(
        "_"
    )
