"""Which roots the node keeps for the tasks that it takes part in, and until when. Pure.

| hold | ends |
| --- | --- |
| `update TASK ROUND` | when the round is settled and `rounds` more are, or the task is over |
| `checkpoint VERSION NAME` | when `versions` newer ones are agreed on; the first stays, as a measure of the others |
| `task TASK`, on its data | when the task is over |

What the ledger does not know yet is kept: this node may be behind.
Of a round that this node recorded, the update and the checkpoint before it are held once more with the states
(`participant.replays`): a check can last longer than the task.
A person's pin is no hold, so nothing here ever ends one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from storage.cid import Cid
    from swarm.ledger.state import LedgerView

KEEP_ROUNDS = 3
"""Rounds after its own for which an update stays."""
KEEP_VERSIONS = 3
"""Newest versions of a name that stay."""
FIRST = 0
"""The version that a task begins with."""


@dataclass(frozen=True, slots=True)
class Update:
    """This node's update of one round, for those who score it and those who come late."""

    task: bytes
    round: int

    @property
    def label(self) -> str:
        """As the hold is called."""
        return f"update {self.task.hex()} {self.round}"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One version of a name, or what this node believes will be it."""

    name: str
    version: int

    @property
    def label(self) -> str:
        """As the hold is called."""
        return f"checkpoint {self.version} {self.name}"


@dataclass(frozen=True, slots=True)
class Data:
    """What a task trains on and is scored on."""

    task: bytes

    @property
    def label(self) -> str:
        """As the hold is called."""
        return f"task {self.task.hex()}"


Reason: TypeAlias = Update | Checkpoint | Data


@dataclass(frozen=True, slots=True)
class Retention:
    """How much is kept.

    Attributes:
        rounds: After its own, for which an update stays.
        versions: The newest ones of each name.
    """

    rounds: int = KEEP_ROUNDS
    versions: int = KEEP_VERSIONS


@dataclass(frozen=True, slots=True)
class Facts:
    """What the ledger says about what is held.

    Attributes:
        rounds: The current round of each task that it knows; None once the task is over.
        versions: The newest version of each name.
        roots: Of each version that is held and agreed on.
        training: Names that an open task trains.
    """

    rounds: Mapping[bytes, int | None]
    versions: Mapping[str, int]
    roots: Mapping[Checkpoint, Cid]
    training: frozenset[str] = frozenset()


def reason(label: str) -> Reason | None:
    """What a hold is for; None if it is another part's."""
    try:
        match label.split(" ", 2):
            case ["update", task, round_]:
                return Update(bytes.fromhex(task), int(round_))
            case ["checkpoint", version, name]:
                return Checkpoint(name, int(version))
            case ["task", task]:
                return Data(bytes.fromhex(task))
    except ValueError:
        pass
    return None


def released(
    holds: Iterable[tuple[Cid, str]], facts: Facts, keep: Retention
) -> list[tuple[Cid, str]]:
    """The holds that have ended, in their order."""
    return [(root, label) for root, label in holds if _has_ended(root, reason(label), facts, keep)]


def _has_ended(root: Cid, why: Reason | None, facts: Facts, keep: Retention) -> bool:
    match why:
        case Update(task, number) if task in facts.rounds:
            now = facts.rounds[task]
            return now is None or now > number + keep.rounds
        case Data(task) if task in facts.rounds:
            return facts.rounds[task] is None
        case Checkpoint(name, version) if name in facts.versions:
            newest = facts.versions[name]
            if version > newest:
                return name not in facts.training
            is_agreed = facts.roots.get(why) == root
            return not is_agreed or FIRST < version <= newest - keep.versions
    return False


def facts_of(view: LedgerView, holds: Sequence[tuple[Cid, str]]) -> Facts:
    """What the state at one height says about some holds."""
    rounds: dict[bytes, int | None] = {}
    versions: dict[str, int] = {}
    roots: dict[Checkpoint, Cid] = {}
    for why in {reason(label) for _, label in holds}:
        if isinstance(why, Checkpoint):
            entry, agreed = view.name(why.name), view.name_version(why.name, why.version)
            if entry is not None:
                versions[why.name] = entry.version
            if agreed is not None:
                roots[why] = agreed.root
        elif why is not None and view.task(why.task) is not None:
            round_ = view.round(why.task)
            rounds[why.task] = None if round_ is None else round_.number
    tasks = [view.task(task) for task in view.open_tasks()]
    return Facts(rounds, versions, roots, frozenset(task.name for task in tasks if task))
