"""Records of work that is run again: which submissions were drawn, who does it, and what was found."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from storage.cid import Cid

MAX_DISTANCE = 10**12
"""Parts of a million; what is no number is this far."""


class Finding(IntEnum):
    """What came of running a segment again."""

    MATCH = 1  # bit for bit, or within the tolerance
    MISMATCH = 2
    WITHHELD = 3  # record or states were not to be had, or none that can be run


class Stage(IntEnum):
    """Where it stands; from `CLEARED` on it is over."""

    CHECK = 1  # one verifier is asked
    REFEREES = 2  # it found fault: three others are
    CLEARED = 3
    UNANSWERED = 4  # too few said anything: nobody is accused
    LOST = 5  # withheld: the reward is gone
    CONVICTED = 6  # not the work that was due: reward and bond are gone


OPEN = (Stage.CHECK, Stage.REFEREES)


@dataclass(frozen=True, slots=True)
class Found:
    """What one of them says."""

    finding: Finding
    distance: int  # parts of a million


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
    until: int  # the last height that takes findings, as it stands
    stage: Stage
    held: int  # units of its reward, until it is over
    verifier: bytes
    referees: tuple[bytes, ...] = ()
    found: Mapping[bytes, Found] = field(default_factory=dict)

    @property
    def asked(self) -> tuple[bytes, ...]:
        """Who is to run it again now and has not said what came of it."""
        asked = {Stage.CHECK: (self.verifier,), Stage.REFEREES: self.referees}
        return tuple(key for key in asked.get(self.stage, ()) if key not in self.found)

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
            self.verifier,
            self.referees,
            [[key, int(one.finding), one.distance] for key, one in self.found.items()],
        ]

    @classmethod
    def unpack(cls, key: bytes, value: list[Any]) -> Replay:
        """The record from its key, without the letter, and its fields."""
        task, number, worker = key[:32], int.from_bytes(key[32:36], "big"), key[36:]
        *fields, stage, held, verifier, referees, found = value
        return cls(  # type: ignore[call-arg]  # counted by place
            task,
            number,
            worker,
            *fields,
            Stage(stage),
            held,
            verifier,
            tuple(referees),
            {who: Found(Finding(finding), distance) for who, finding, distance in found},
        )
