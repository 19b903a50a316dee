"""Records of training: tasks, their rounds, and what each round left behind."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from storage.cid import Cid

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
    DUPLICATE = 6  # the same CID as one that was committed earlier, or nearly the same content
    NOT_OWN_DATA = 7  # it gains no more on its own samples than on others

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
    Refusal.NOT_OWN_DATA: "not trained on its own samples",
}


def refusal(score: int) -> Refusal | None:
    """The refusal that a score stands for, or None for a real score."""
    return Refusal(SCORE_REFUSED - score) if score <= SCORE_REFUSED else None


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
    attempt: int  # from 1; counts restarts of TRAIN without commits, and draws of new batches
    phase: Phase
    phase_deadline: int  # the last height at which the phase's transactions count
    started: int  # height at which the attempt began
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
    redraws: int = 0  # times that its batches were drawn again, since too few validators scored

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
            self.redraws,
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
            value[21],
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
