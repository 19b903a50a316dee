"""What a keeper does next, from the ledger's newest state and its own slots: pure.

Slots are appended and given back at the end only, so a commitment is a number: the root is that of so many slots, with those
in their next form that were replaced (`storage.slots`).
The order keeps every commitment provable:

1. What the ledger counts is adopted: the slots' settled version becomes it.
2. Sealed slots that the ledger does not count are given back as soon as they do not fit.
3. Those that it counts are given back after it counts fewer, which takes a block, or the rest of an audit.
4. More slots are committed when they are twice as many, when all are sealed, and before each audit.
5. Slots that were replaced are committed a batch at a time; where the ledger counts none, they are settled without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from swarm.ledger import rewards, schedule
from swarm.ledger.keeping import AuditPhase, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from storage.slots import Version
    from swarm.ledger.genesis import Params
    from swarm.ledger.keeping import AuditState, Duty, Failure, Keeper
    from swarm.ledger.state import Account

BALANCE_PARTS: Final = 10
"""A tenth of the balance is not locked as collateral: it pays fees."""
COMMIT_BLOCKS: Final = 2
"""A commitment is sent while it is taken in so many of the next blocks, where so many are open in a row."""
GROWN_PARTS: Final = 64
"""Once all is sealed, a commitment that grows by less than this part waits for the next audit."""
LAST_PARTS: Final = 16
"""In the last 1/16 of an audit's blocks before commitments close all that is sealed is committed."""
MIN_LAST_BLOCKS: Final = 4
LABEL: Final = "duty "


@dataclass(frozen=True, slots=True)
class Own:
    """This keeper's slots.

    Attributes:
        sealed: How many there are.
        settled: The version that can be proven.
        goal: How many are wanted.
        stay: How many of the sealed ones stay: those that fit, and those up to the last that holds a chunk.
        urgent: The disk is nearly full.
        provable: What the ledger counts is the root over so many of the slots.
        waiting: A commitment was sent and is in no block yet.
        refused: One was refused a while ago.
        sent: Slots of the commitment that was sent.
        replaced: How many wait in their next form for a commitment.
        is_ripe: Whether those should be committed now.
    """

    sealed: int
    settled: Version
    goal: int
    stay: int
    urgent: bool = False
    provable: bool = True
    waiting: bool = False
    refused: bool = False
    sent: int = 0
    replaced: int = 0
    is_ripe: bool = False


@dataclass(frozen=True, slots=True)
class Adopt:
    """Make the first `slots` the version that is proven."""

    slots: int


@dataclass(frozen=True, slots=True)
class Shrink:
    """Give back what is behind the first `slots`, now."""

    slots: int


@dataclass(frozen=True, slots=True)
class Commit:
    """Tell the ledger that the first `slots` are lent; 0 takes all back."""

    slots: int


@dataclass(frozen=True, slots=True)
class Settle:
    """Put what was replaced into its place: nobody counts what stands there."""


Step: TypeAlias = Adopt | Shrink | Commit | Settle


def next_step(
    height: int, params: Params, account: Account, keeper: Keeper | None, own: Own
) -> Step | None:
    """What to do with the slots now, or None.

    Args:
        height: Of the newest final block.
        params: The network's.
        account: This one.
        keeper: Its record; None where it lends nothing.
        own: Its slots.
    """
    counted = keeper.slots if keeper is not None else 0
    if keeper is not None and counted and own.provable and _differs(keeper, own.settled):
        return Adopt(counted)
    if own.sealed > own.stay:
        floor = own.stay if own.urgent else max(own.stay, min(max(counted, own.sent), own.sealed))
        if own.sealed > floor:
            return Shrink(floor)
    if own.replaced and own.is_ripe and not counted and not own.waiting:
        return Settle()
    if own.waiting or own.refused or not is_open(params, height):
        return None
    target = min(own.sealed, own.stay, affordable(params, account, keeper))
    if counted and not own.provable:
        return Commit(target)
    if counted > own.stay:
        return Commit(own.stay)
    if "keeper" not in account.roles or (keeper is not None and keeper.suspended and not counted):
        return None
    is_full = own.replaced and own.is_ripe and target >= counted
    if is_full or _is_worth(height, params, counted, target, own.goal):
        return Commit(target)
    return None


def affordable(params: Params, account: Account, keeper: Keeper | None) -> int:
    """Slots whose collateral the account can lock."""
    if not params.keeper_bond:
        return 2**32
    locked = keeper.collateral if keeper is not None else 0
    free = locked + account.balance - account.balance // BALANCE_PARTS
    return params.free_slots + free // params.keeper_bond


def is_open(params: Params, height: int) -> bool:
    """Whether a commitment that is sent now is taken in the next blocks, of which there may be one alone between audits."""
    blocks = min(COMMIT_BLOCKS, schedule.open_blocks(params))
    nexts = range(height + 1, height + 1 + blocks)
    return all(schedule.opens(params, one) == one for one in nexts)


def opens_at(params: Params, height: int) -> int:
    """The height from which a commitment that is sent now is taken."""
    return schedule.opens(params, height + 1)


def _differs(keeper: Keeper, settled: Version) -> bool:
    return (keeper.root, keeper.slots) != (settled.root, settled.slots)


def _is_worth(height: int, params: Params, counted: int, target: int, goal: int) -> bool:
    if target <= counted:
        return False
    if target >= 2 * counted or (target >= goal and (target - counted) * GROWN_PARTS >= counted):
        return True
    audit = schedule.start(params, height // params.audit_blocks + 1)
    last = max(MIN_LAST_BLOCKS, params.audit_blocks // LAST_PARTS)
    return height >= audit - schedule.closed_blocks(params) - COMMIT_BLOCKS - last


def owes_answer(audit: AuditState | None, keeper: Keeper | None) -> bool:
    """Whether the running audit waits for this keeper's answer."""
    return (
        audit is not None
        and keeper is not None
        and keeper.slots > 0
        and audit.phase is AuditPhase.ANSWER
        and keeper.public_key not in audit.answers
    )


def report_by(params: Params, audit: AuditState) -> int:
    """The height at which an auditor says what it has found by then, so that a block takes it in time."""
    return audit.reports_until - min(3, max(1, params.audit_report_blocks // 2))


def asks_from(params: Params, audit: AuditState) -> int:
    """The height from which an auditor asks: a block after the answers closed, if that leaves one until it reports."""
    return min(audit.answers_until + 1, report_by(params, audit) - 1)


def least_asking_s(params: Params, audit: AuditState) -> float:
    """For how many seconds a keeper has to be asked before its silence is its own: half of the usual time.

    Blocks may become final many at once, and a node that was away sees them so: heights alone tell no time.
    """
    blocks = report_by(params, audit) - asks_from(params, audit)
    return blocks * params.block_interval_ms / 2_000


def label(duty: Duty) -> str:
    """Of the hold that keeps a duty's piece."""
    return f"{LABEL}{duty.deal.hex()} {duty.piece}"


def stale_holds(
    holds: Iterable[tuple[bytes, str]], duties: Sequence[Duty]
) -> list[tuple[bytes, str]]:
    """The holds of duties whose seat is gone."""
    standing = {label(one) for one in duties}
    return [(root, name) for root, name in holds if name.startswith(LABEL) and name not in standing]


@dataclass(frozen=True, slots=True)
class Due:
    """What one of this keeper's duties pays in an audit, as it stood before the settlement.

    Attributes:
        deal: Its id.
        piece: The piece's place in it.
        pay: Units.
    """

    deal: bytes
    piece: int
    pay: int


def earned(
    audit: AuditState,
    keepers: Sequence[Keeper],
    own: bytes,
    due: Iterable[Due],
    unpaid: Iterable[tuple[bytes, int]],
) -> int:
    """What an audit paid this keeper, by the records as the settlement left them.

    Args:
        audit: Settled.
        keepers: Everybody's records.
        own: This keeper's key.
        due: Its duties that had to be shown.
        unpaid: (deal, piece) of those that its auditors named missing, or do not agree about.
    """
    paid = [one for one in keepers if one.verdict is Verdict.PROVEN and one.in_order]
    at = next((at for at, one in enumerate(paid) if one.public_key == own), None)
    if at is None:
        return 0
    missing = set(unpaid)
    shares = rewards.split(audit.paid, [one.proven for one in paid])
    return shares[at] + sum(one.pay for one in due if (one.deal, one.piece) not in missing)


def reason_of(verdict: Verdict, named: Sequence[Failure]) -> str:
    """Why an audit ended as it did, for the person whose keeper it was.

    Args:
        verdict: On its record.
        named: What auditors reported of it.
    """
    match verdict:
        case Verdict.NONE:
            return "no audit yet"
        case Verdict.PROVEN:
            return "proven"
        case Verdict.UNDECIDED:
            return "too few auditors reported, or they disagree: not paid, and no strike"
        case Verdict.NO_ANSWER:
            return "strike: no answer stood on the ledger in time"
        case Verdict.LOST_PIECE:
            return "strike: a piece that it had shown before was missing"
        case Verdict.FAILED:
            words = max(set(named), key=lambda one: (named.count(one), -one), default=None)
            return f"strike: {words.reason}" if words is not None else "strike: it failed"
