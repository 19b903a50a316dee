"""Which step of a round this node owes next: pure, from finalized state and its own memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from swarm.ledger.state import Phase
from swarm.ledger.transactions import (
    CheckpointCommit,
    CheckpointReveal,
    MergeAttest,
    ScoreCommit,
    ScoreReveal,
    commit_hash,
    score_hash,
)

if TYPE_CHECKING:
    from storage.cid import Cid
    from swarm.ledger.state import RoundState
    from swarm.ledger.transactions import Payload
    from swarm.participant.memory import RoundMemory


@dataclass(frozen=True, slots=True)
class Me:
    """Which account acts, and in which roles."""

    account: bytes
    trains: bool
    validates: bool


@dataclass(frozen=True, slots=True)
class Train:
    """Make an update from the agreed checkpoint."""


@dataclass(frozen=True, slots=True)
class Commit:
    """Send the commitment to the update."""

    root: Cid
    salt: bytes


@dataclass(frozen=True, slots=True)
class Reveal:
    """Open the commitment."""

    root: Cid
    salt: bytes


@dataclass(frozen=True, slots=True)
class Prefetch:
    """Fetch the updates that are already revealed, before their scores are due."""

    roots: tuple[Cid, ...]


@dataclass(frozen=True, slots=True)
class Score:
    """Score every submission on the batches that the beacon drew."""


@dataclass(frozen=True, slots=True)
class CommitScores:
    """Send the commitment to the scores."""

    base_loss: int
    scores: tuple[int, ...]
    salt: bytes


@dataclass(frozen=True, slots=True)
class RevealScores:
    """Open the scores."""

    base_loss: int
    scores: tuple[int, ...]
    salt: bytes


@dataclass(frozen=True, slots=True)
class Merge:
    """Derive the next checkpoint from the accepted updates."""


@dataclass(frozen=True, slots=True)
class Attest:
    """Say which checkpoint came out, and its loss."""

    root: Cid
    loss: int


Send: TypeAlias = Commit | Reveal | CommitScores | RevealScores | Attest
"""A transaction: repeated until the ledger shows it."""
Work: TypeAlias = Train | Prefetch | Score | Merge
"""Work of seconds to minutes, cancelled when its phase is over."""


def payload(step: Send, round_: RoundState, account: bytes) -> Payload:
    """What a step sends to the ledger."""
    task, number = round_.task, round_.number
    match step:
        case Commit(root, salt):
            return CheckpointCommit(task, number, commit_hash(root, account, salt))
        case Reveal(root, salt):
            return CheckpointReveal(task, number, root, salt)
        case CommitScores(base_loss, scores, salt):
            return ScoreCommit(
                task, number, score_hash(task, number, account, base_loss, scores, salt)
            )
        case RevealScores(base_loss, scores, salt):
            return ScoreReveal(task, number, base_loss, scores, salt)
        case Attest(root, loss):
            return MergeAttest(task, number, root, loss)


def last_height(step: Send, round_: RoundState) -> int | None:
    """The last block that may hold what a step sends; None: any.

    Scores of one attempt that land in the next would hold the place of those that are due there.
    """
    return round_.phase_deadline if isinstance(step, CommitScores) else None


def may_train(round_: RoundState, registered: int | None) -> bool:
    """Whether a worker works in a round; who registered after it began starts with the next.

    Args:
        round_: The round as the newest finalized block leaves it.
        registered: The height at which the worker registered; None: it is no worker.
    """
    return registered is not None and registered <= round_.started


def decide(round_: RoundState, me: Me, memory: RoundMemory) -> Send | Work | None:
    """The next step, or None when the others are to move.

    Args:
        round_: The round as the newest finalized block leaves it.
        me: This node.
        memory: What this node did in this round and attempt.
    """
    if me.trains:
        step = _as_worker(round_, me.account, memory)
        if step is not None:
            return step
    return _as_validator(round_, me.account, memory) if me.validates else None


def owes(round_: RoundState, me: bytes, memory: RoundMemory) -> bool:
    """Whether something that this node made is still to be handed in or opened in this round.

    Args:
        round_: The round as the newest finalized block leaves it.
        me: This node's account.
        memory: What this node did in this round and attempt.
    """
    phase = round_.phase
    if memory.update is not None and (
        phase is Phase.TRAIN
        or (phase is Phase.REVEAL and me in round_.commits and me not in round_.reveals)
    ):
        return True
    if memory.scores is not None and (
        phase is Phase.SCORE_COMMIT
        or (
            phase is Phase.SCORE_REVEAL
            and me in round_.score_commits
            and me not in round_.score_reveals
        )
    ):
        return True
    return memory.merged is not None and phase is Phase.ATTEST and me not in round_.attestations


def _as_worker(round_: RoundState, me: bytes, memory: RoundMemory) -> Send | Work | None:
    committed = me in round_.commits
    if round_.phase is Phase.TRAIN and not committed:
        return Commit(memory.update, memory.salt) if memory.update is not None else Train()
    unrevealed = committed and me not in round_.reveals
    if round_.phase is Phase.REVEAL and unrevealed and memory.update is not None:
        return Reveal(memory.update, memory.salt)
    return None


def _as_validator(round_: RoundState, me: bytes, memory: RoundMemory) -> Send | Work | None:
    phase = round_.phase
    if phase is Phase.REVEAL:
        roots = tuple(root for root in round_.reveals.values() if root not in memory.fetched)
        return Prefetch(roots) if roots else None
    scores = memory.scores
    if phase is Phase.SCORE_COMMIT and me not in round_.score_commits:
        if scores is None:
            # The batches are drawn with the block after: before it, anyone could know them.
            return Score() if round_.score_beacon else None
        return CommitScores(scores.base_loss, scores.values, scores.salt)
    if (
        phase is Phase.SCORE_REVEAL
        and me in round_.score_commits
        and me not in round_.score_reveals
        and scores is not None
    ):
        return RevealScores(scores.base_loss, scores.values, scores.salt)
    if phase is Phase.ATTEST and me not in round_.attestations:
        merged = memory.merged
        return Merge() if merged is None else Attest(merged.root, merged.loss)
    return None
