"""Records of work that is run again: which submissions were drawn, who does it, what they sealed, and what they found."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

from storage import canonical

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from storage.cid import Cid

KINDS: Final = ("classifier", "finetune", "lm")
"""Kinds of tasks whose rounds are recorded."""
MAX_DISTANCE = 10**12
"""Parts of a million; what is no number is this far."""
PROOF_SIZE: Final = 16
"""Numbers of a proof of having run a segment."""
MAX_PROOF: Final = 2**53
"""The greatest of them, with either sign."""
PROOF_SLACK: Final = 5
"""Two proofs may be so many times the tolerance apart: half of a segment's way is shorter, and a sketch is rough."""
_SAID_TAG: Final = b"swarm/replay-said/1\x00"
_PROOF_TAG: Final = b"swarm/replay-proof/1\x00"


class Finding(IntEnum):
    """What came of running a segment again."""

    MATCH = 1  # bit for bit, or within the tolerance
    MISMATCH = 2
    WITHHELD = 3  # record or states were not to be had, or none that can be run


class Stage(IntEnum):
    """Where it stands; from `CLEARED` on it is over."""

    CHECK = 1  # one verifier is asked for a seal
    SECOND = 2  # and, of some, another, to compare
    OPENING = 3  # they open what they sealed
    REFEREES = 4  # they found fault, or their proofs differ: three others are asked for a seal
    JUDGING = 5  # and open it
    CLEARED = 6
    UNANSWERED = 7  # too few said anything that stands: nobody is accused
    LOST = 8  # withheld: the reward is gone
    CONVICTED = 9  # not the work that was due: reward and bond are gone


SEALING = (Stage.CHECK, Stage.SECOND, Stage.REFEREES)
OPENING = (Stage.OPENING, Stage.JUDGING)
OPEN = (*SEALING, *OPENING)


@dataclass(frozen=True, slots=True)
class Found:
    """What one of them says."""

    finding: Finding
    distance: int  # parts of a million
    proof: tuple[int, ...]  # of having run it; none where nothing could be run


@dataclass(frozen=True, slots=True)
class Replay:
    """A submission of which one segment is run again; kept for ever."""

    task: bytes
    round: int
    worker: bytes
    root: Cid  # of its update
    base: Cid
    beacon: bytes  # that drew its samples
    seed: bytes  # draws the segment
    begun: int  # height
    until: int  # the last height that takes what is asked for, as it stands
    stage: Stage
    held: int  # units of its reward, until it is over
    put_aside: int  # units of the task's budget for who runs it again, until it is over
    verifier: bytes
    second: bytes = b""
    referees: tuple[bytes, ...] = ()
    passed: tuple[bytes, ...] = ()  # were drawn as the verifier, and were silent
    sealed: Mapping[bytes, bytes] = field(default_factory=dict)
    found: Mapping[bytes, Found] = field(default_factory=dict)

    @property
    def seats(self) -> tuple[bytes, ...]:
        """Who has a part in the stage."""
        checkers = (self.verifier, self.second) if self.second else (self.verifier,)
        return {
            Stage.CHECK: (self.verifier,),
            Stage.SECOND: (self.second,),
            Stage.OPENING: checkers,
            Stage.REFEREES: self.referees,
            Stage.JUDGING: self.referees,
        }.get(self.stage, ())

    @property
    def asked(self) -> tuple[bytes, ...]:
        """Who is to seal, or to open, what came of it, and has not."""
        if self.stage in SEALING:
            return tuple(key for key in self.seats if key not in self.sealed)
        return tuple(key for key in self.seats if key in self.sealed and key not in self.found)

    def pack(self) -> list[Any]:
        """Fields for the encoding; what the key says is not repeated."""
        return [
            self.root,
            self.base,
            self.beacon,
            self.seed,
            self.begun,
            self.until,
            int(self.stage),
            self.held,
            self.put_aside,
            self.verifier,
            self.second,
            self.referees,
            self.passed,
            [[key, seal] for key, seal in self.sealed.items()],
            [[key, int(one.finding), one.distance, one.proof] for key, one in self.found.items()],
        ]

    @classmethod
    def unpack(cls, key: bytes, value: list[Any]) -> Replay:
        """The record from its key, without the letter, and its fields."""
        task, number, worker = key[:32], int.from_bytes(key[32:36], "big"), key[36:]
        *fields, stage, held, aside, verifier, second, referees, passed, sealed, found = value
        return cls(  # type: ignore[call-arg]  # counted by place
            task,
            number,
            worker,
            *fields,
            Stage(stage),
            held,
            aside,
            verifier,
            second,
            tuple(referees),
            tuple(passed),
            {who: bytes(seal) for who, seal in sealed},
            {
                who: Found(Finding(finding), distance, tuple(proof))
                for who, finding, distance, proof in found
            },
        )


def seal_of(task: bytes, number: int, worker: bytes, by: bytes, found: Found, salt: bytes) -> bytes:
    """32 bytes that bind what was found, and tell nobody of it."""
    said = [int(found.finding), found.distance, list(found.proof)]
    return hashlib.sha256(
        _SAID_TAG + canonical.encode([task, number, worker, by, *said, salt])
    ).digest()


def proof_key(seed: bytes) -> bytes:
    """What a proof of having run the segment of a draw is made with."""
    return hashlib.sha256(_PROOF_TAG + seed).digest()


def near(ours: Sequence[int], theirs: Sequence[int], tolerance: int) -> bool:
    """Whether two ran the same segment, by their proofs.

    Args:
        ours: `PROOF_SIZE` numbers.
        theirs: Likewise.
        tolerance: Of the network, in parts of a million.
    """
    if len(ours) != PROOF_SIZE or len(theirs) != PROOF_SIZE:
        return False
    gap = sum((left - right) ** 2 for left, right in zip(ours, theirs, strict=True))
    way = max(sum(one * one for one in ours), sum(one * one for one in theirs))
    return gap * 10**12 <= (PROOF_SLACK * tolerance) ** 2 * way
