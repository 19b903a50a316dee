"""Records of keeping: keepers and their capacity, the running audit, deals and who keeps their pieces."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from storage.cid import Cid

SLOT_BYTES = 2**20
SLOT_LEAVES = 256
"""Leaves of 4 KiB in a slot."""
PRICED_BYTES = 2**30
"""A piece pays for each GiB begun."""
MAX_PIECES = 32
MAX_REPLICAS = 16
MAX_SEATS = 64
"""Pieces of one deal, replicas counted."""


class AuditPhase(IntEnum):
    """Where an audit stands."""

    ANSWER = 1  # keepers commit to their leaves
    REPORT = 2  # auditors say what they found
    SETTLED = 3  # until the next one begins


class Failure(IntEnum):
    """Why an auditor names a keeper."""

    SILENT = 1  # it gave no leaves in time
    OTHER_LEAVES = 2  # not those that its answer commits to
    NO_PATH = 3  # a leaf or label does not stand under the committed root
    OTHER_CONTENT = 4  # a slot does not unseal to the chunk or the zeros that its label names

    @property
    def reason(self) -> str:
        """The words for people."""
        return _FAILURE_WORDS[self]


_FAILURE_WORDS = {
    Failure.SILENT: "did not give its leaves",
    Failure.OTHER_LEAVES: "gave other leaves than it answered with",
    Failure.NO_PATH: "gave leaves that its root does not hold",
    Failure.OTHER_CONTENT: "a slot does not unseal to what its label names",
}


class Verdict(IntEnum):
    """How a keeper's last audit ended."""

    NONE = 0  # it was in none yet
    PROVEN = 1
    UNDECIDED = 2  # too few reports, or they contradict each other
    NO_ANSWER = 3
    FAILED = 4  # more than two thirds of its auditors named it
    LOST_PIECE = 5  # likewise, for a piece that it had shown before

    @property
    def is_strike(self) -> bool:
        """Whether it counts against the keeper."""
        return self >= Verdict.NO_ANSWER


@dataclass(frozen=True, slots=True)
class Keeper:
    """What an account lends, and how it stood its audits."""

    public_key: bytes
    root: bytes  # over the labels of its slots
    slots: int  # 0: it left, and its record stays because of strikes
    collateral: int
    committed: int  # height of its last commit
    proven: int = 0  # slots that its last audits found in order; what duties are drawn by
    strikes: int = 0
    clean_since: int = 0  # the audit from which its clean stretch counts
    suspended: bool = False
    verdict: Verdict = Verdict.NONE

    @property
    def in_order(self) -> bool:
        """Whether it is given duties and paid."""
        return self.proven > 0 and not self.suspended

    def pack(self) -> list[Any]:
        """Fields for the encoding; the key is not repeated."""
        return [
            self.root,
            self.slots,
            self.collateral,
            self.committed,
            self.proven,
            self.strikes,
            self.clean_since,
            self.suspended,
            int(self.verdict),
        ]

    @classmethod
    def unpack(cls, public_key: bytes, value: list[Any]) -> Keeper:
        """The record from its fields."""
        return cls(public_key, *value[:8], Verdict(value[8]))  # type: ignore[call-arg]  # counted by place


@dataclass(frozen=True, slots=True)
class Audit:
    """What the state keeps of the newest audit; answers and reports stand under keys of their own."""

    number: int
    start: int  # the height whose beacon is the seed
    seed: bytes
    seed2: bytes = b""  # draws auditors and pieces, once the answers are closed
    epoch: int = -1  # whose validators are the auditors; -1 until they are drawn
    settled: int = -1  # height; -1 until then
    paid: int = 0  # of the emission, at the settlement

    def pack(self) -> list[Any]:
        """Fields for the encoding."""
        return [
            self.number,
            self.start,
            self.seed,
            self.seed2,
            self.epoch,
            self.settled,
            self.paid,
        ]


@dataclass(frozen=True, slots=True)
class AuditState:
    """The newest audit with all that was said in it, as `LedgerView.audit` gives it."""

    number: int
    start: int  # the height whose beacon is the seed
    answers_until: int  # the last height that takes answers
    reports_until: int  # the last height that takes reports; the audit settles with that block
    phase: AuditPhase
    seed: bytes
    seed2: bytes  # empty until the answers are closed
    epoch: int  # whose validators are the auditors; -1 until they are drawn
    paid: int  # of the emission, once it is settled
    answers: Mapping[bytes, bytes]  # keeper -> root of its answer
    reported: frozenset[bytes]  # validators whose report stands; empty once it is settled


@dataclass(frozen=True, slots=True)
class Report:
    """What one auditor said of one audit."""

    audit: int
    failed: Mapping[bytes, Failure] = field(default_factory=dict)
    missing: frozenset[tuple[bytes, bytes, int]] = frozenset()  # (keeper, deal, piece)

    def pack(self) -> list[Any]:
        """Fields for the encoding."""
        return [
            self.audit,
            [[key, int(reason)] for key, reason in self.failed.items()],
            [list(one) for one in sorted(self.missing)],
        ]

    @classmethod
    def unpack(cls, value: list[Any]) -> Report:
        """The record from its fields."""
        failed = {key: Failure(reason) for key, reason in value[1]}
        return cls(value[0], failed, frozenset(tuple(one) for one in value[2]))


@dataclass(frozen=True, slots=True)
class Piece:
    """What is to be kept."""

    root: Cid
    size: int  # bytes, as its deal says

    @property
    def slots(self) -> int:
        """How many slots it fills at least."""
        return -(-self.size // SLOT_BYTES)

    @property
    def priced(self) -> int:
        """GiB begun."""
        return -(-self.size // PRICED_BYTES)


@dataclass(frozen=True, slots=True)
class Seat:
    """One keeper's duty to keep one piece."""

    keeper: bytes
    due: int  # the first audit in which it has to show the piece
    shown: bool = False  # it did, and was paid for it


@dataclass(frozen=True, slots=True)
class Deal:
    """A request that pieces be kept; its id is the id of the transaction that posted it."""

    id: bytes
    owner: bytes
    pieces: tuple[Piece, ...]
    replicas: int
    price: int  # units a GiB begun and audit, for each piece and replica
    recipe: Cid  # how the pieces make the whole; empty where each is a whole
    posted: int  # height
    first: int  # the first audit that pays
    audits: int
    escrow: int
    ended: bool = False  # its owner stopped it: the next settlement is its last

    @property
    def last(self) -> int:
        """The last audit that pays."""
        return self.first + self.audits - 1

    @property
    def cost(self) -> int:
        """What an audit costs if all is kept."""
        return self.price * self.replicas * sum(one.priced for one in self.pieces)

    def pack(self) -> list[Any]:
        """Fields for the encoding; the id is not repeated."""
        return [
            self.owner,
            [[one.root, one.size] for one in self.pieces],
            self.replicas,
            self.price,
            self.recipe,
            self.posted,
            self.first,
            self.audits,
            self.escrow,
            self.ended,
        ]

    @classmethod
    def unpack(cls, deal: bytes, value: list[Any]) -> Deal:
        """The record from its fields."""
        return cls(deal, value[0], tuple(Piece(*one) for one in value[1]), *value[2:])


@dataclass(frozen=True, slots=True)
class Seats:
    """Who keeps each piece of a deal; apart from the deal, whose escrow changes with each audit."""

    deal: bytes
    of: tuple[tuple[Seat, ...], ...]  # one a piece, in the order taken

    def pack(self) -> list[Any]:
        """Fields for the encoding; the deal is not repeated."""
        return [[[one.keeper, one.due, one.shown] for one in piece] for piece in self.of]

    @classmethod
    def unpack(cls, deal: bytes, value: list[Any]) -> Seats:
        """The record from its fields."""
        return cls(deal, tuple(tuple(Seat(*one) for one in piece) for piece in value))


@dataclass(frozen=True, slots=True)
class Duty:
    """One piece that one keeper holds, as `LedgerView.duties_of` gives it."""

    deal: bytes
    piece: int  # its place in the deal
    root: Cid
    size: int
    due: int  # the first audit in which it is challenged
    shown: bool
