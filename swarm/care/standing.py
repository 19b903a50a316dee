"""What a node does or why it does not, what is about to cost it tokens, and where its disk goes; pure.

The status carries these, so that every state that is not work has its reason in one place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from swarm.ledger import schedule, validators
from swarm.sizes import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swarm.care.controls import Reason
    from swarm.ledger.genesis import Params
    from swarm.ledger.keeping import Duty, Keeper
    from swarm.ledger.state import RoundState

    Json = dict[str, Any]

AT_REST: Final = "waiting"
"""How an activity begins where the others are to move."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a state is made of.

    Attributes:
        behind: Blocks that peers hold and this node does not; None where it is level.
        leaving: Percent of leaving that is done; None where it stays, 100 where it has left.
        trains: It was started to train.
        is_worker: The ledger knows it as a worker.
        held: Why training is held back; None where it is not.
        has_task: A training task is open.
        activity: What is done for it, in words; empty where nothing is.
        others: What the others do for it, in words; empty where nothing is known.
        is_early: It became a worker after the running round began, and works from the next one on.
        votes: As `votes` tells; None for one that the epoch does not name as a validator.
    """

    behind: int | None
    leaving: int | None
    trains: bool
    is_worker: bool
    held: Reason | None
    has_task: bool
    activity: str
    votes: Json | None = None
    others: str = ""
    is_early: bool = False


def state(facts: Facts) -> Json:
    """What the node does, and why not more.

    Returns:
        `code` (`working`, or why not: `catching_up`, `left`, `leaving`, a code of `controls.Reason`, `no_task`, `validator`,
        `reader`, `not_registered`, `waiting`), `why` (words) and `until` (seconds since 1970; None: not known).
    """
    if facts.behind is not None:
        far = f"{counted(facts.behind, 'block')} behind its peers"
        return _told("catching_up", far if facts.behind else "it looks for its peers' newest block")
    if facts.leaving is not None:
        if facts.leaving >= 100:
            return _told("left", "everything is handed over and taken back")
        return _told("leaving", f"draining at {facts.leaving} %")
    if facts.trains and facts.held is not None:
        return _told(facts.held.code, facts.held.why, facts.held.until)
    if not facts.trains:
        code, why = (
            ("reader", "") if facts.votes is None else ("validator", f"{facts.votes['why']}; ")
        )
        return _told(code, f"{why}it was started without training")
    if not facts.has_task:
        return _told("no_task", "no training task is open")
    if not facts.is_worker:
        return _told("not_registered", "the ledger does not know it as a worker yet")
    if facts.activity.startswith(AT_REST) or not facts.activity:
        return _told("waiting", _waits(facts))
    if facts.activity.startswith("no time"):
        return _told("schedule", facts.activity)
    return _told("working", facts.activity)


def _waits(facts: Facts) -> str:
    if facts.is_early:
        why = "it became a worker after this round began, and trains from the next one on"
        return f"{why}; {facts.others}" if facts.others else why
    if not facts.activity:
        return "it takes no part in the open task"
    return facts.others or facts.activity


def others(round_: RoundState, height: int) -> str:
    """What the others do in a round, and for how long at most."""
    left = max(0, round_.phase_deadline - height)
    phase = round_.phase.name.lower().replace("_", " ")
    return f"round {round_.number:,} is with the others: {phase}, at most {counted(left, 'block')} more"


def votes(*, is_voting: bool, is_silent: bool, waits_for: int | None, epoch_length: int) -> Json:
    """Whether a validator's node votes, why not, and when it does again.

    Args:
        is_voting: It votes in the present epoch.
        is_silent: Its key was seen to sign elsewhere.
        waits_for: The epoch before which its key does not vote; None where it does not wait for one.
        epoch_length: In blocks.

    Returns:
        `code` (`voting`, `silent`, `log_lost`, or `not_yet`), `why` (words), and `epoch` and `height` from which it votes (None: it
        votes, or that is not known).
    """
    told: Json = {"code": "voting", "why": "it votes", "epoch": None, "height": None}
    if waits_for is not None:
        first = waits_for * epoch_length + 1
        when = f"from epoch {waits_for:,} (height {first:,}) on"
        code, why = "log_lost", "its log does not hold every vote that its key may have cast"
        if is_silent:
            code, why = "silent", "its key was seen to sign elsewhere"
            when = f"after the other one is stopped and this node started again, {when}"
        why = f"it does not vote: {why}; it votes {when}"
        return told | {"code": code, "why": why, "epoch": waits_for, "height": first}
    if not is_voting:
        return told | {"code": "not_yet", "why": "it does not vote yet: it catches up first"}
    return told


def _told(code: str, why: str, until: float | None = None) -> Json:
    return {"code": code, "why": why, "until": until}


def settles_at(params: Params, height: int) -> int:
    """The height at which the running or the next audit is settled."""
    number = height // params.audit_blocks
    for one in (number, number + 1):
        end = schedule.reports_until(params, schedule.start(params, one)) + 1
        if one and end > height:
            return end
    return height  # not reached: the audit after the next ends after now


def warnings(
    params: Params,
    height: int,
    keeper: Keeper | None,
    missing: Sequence[Duty],
    jailed: int | None,
    missed_views: int,
) -> list[Json]:
    """What costs tokens next, and when.

    Args:
        params: The network's.
        height: Of the newest final block.
        keeper: Its record; None where it lends nothing.
        missing: Pieces that it has to show and does not have.
        jailed: Blocks until it may ask to be let out; None for one that is not jailed.
        missed_views: That it led without a block in this epoch.

    Returns:
        `code`, `why`, `height` and `seconds` (until it costs; None: not known) each.
    """
    found = []
    seconds = params.block_interval_ms / 1000
    end = settles_at(params, height)

    def warn(code: str, why: str, then: int | None) -> None:
        left = None if then is None else max(0, then - height) * seconds
        found.append({"code": code, "why": why, "height": then, "seconds": left})

    if keeper is not None and keeper.suspended:
        left = params.standing_audits
        warn("suspended", f"suspended: not paid until {left} audits in a row are in order", None)
    if keeper is not None and keeper.strikes and keeper.slots:
        more = params.strike_limit - keeper.strikes
        loss = f"slashes {_tenths(params)} of the collateral and suspends"
        text = f"{keeper.strikes} of {params.strike_limit} strikes: "
        text += f"the next one {loss}" if more == 1 else f"{more} more, and it {loss}"
        warn("strikes", text, end)
    number = height // params.audit_blocks + (end > height + params.audit_blocks)
    due = [one for one in missing if one.due <= number + 1]
    if due:
        shown = sum(one.shown for one in due)
        text = f"not here: {counted(len(due), 'piece')} to be shown"
        text += (
            f"; {shown:,} of them were shown before, which is a strike"
            if shown
            else "; their seats are lost"
        )
        warn("pieces", text, end)
    if jailed is not None:
        why = "in jail: its votes do not count and it earns nothing"
        warn("jailed", why, height + max(0, jailed))
    epoch_end = (height // params.epoch_length + 1) * params.epoch_length
    if missed_views > validators.FREE_MISSES:
        text = f"{missed_views} views that it led brought no block: it leads less two epochs later"
        warn("missed_views", text, epoch_end)
    return found


def _tenths(params: Params) -> str:
    return f"{params.slash_part / validators.WHOLE:.0%}"


def space(
    *, lent: int, chunks: int, shelf: int, sealed: int, reclaimable: int, disk: tuple[int, int, int]
) -> Json:
    """Where the disk goes, reconciled with what the system says.

    Args:
        lent: What the person said, in bytes.
        chunks: Of the store.
        shelf: Unpacked for the worker.
        sealed: Slots.
        reclaimable: What a collection would give back.
        disk: Of the disk, in bytes: size, free, and what stays free.

    Returns:
        `lent`, `used` (chunks and unpacked files), `sealed`, `reclaimable`, `left` (of what is lent), `disk`, `disk_free`,
        `reserve`, `others` (taken by others on that disk), and `short`: what is lent and could not be written, since the disk
        does not have it.
    """
    size, free, keep_free = disk
    ours = chunks + shelf + sealed
    left = max(0, lent - ours)
    return {
        "lent": lent,
        "used": chunks + shelf,
        "sealed": sealed,
        "reclaimable": reclaimable,
        "left": left,
        "disk": size,
        "disk_free": free,
        "reserve": keep_free,
        "others": max(0, size - free - ours),
        "short": max(0, left - max(0, free - keep_free)),
    }
