"""Audits: what happens to all keepers once in `audit_blocks` blocks; heights drive it, nobody is waited for.

    start     at the end of block h0 = number * audit_blocks: its beacon is the seed, which draws the leaves
    answers   in the blocks up to h1: each keeper commits to the bytes of its leaves
    draw      at the end of block h1: its beacon is the second seed, which draws auditors and pieces
    reports   in the blocks up to h2: who an auditor does not name was in order
    settle    at the end of block h2: verdicts, strikes, payments, and vacant seats filled

Start and draw write one small record each; the settlement is bounded by `max_keepers` and the seats of `max_deals`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from swarm.ledger import capacity, deals, rewards, schedule
from swarm.ledger.draws import Panel, audited_by, auditors_of
from swarm.ledger.keeping import Audit, Verdict
from swarm.ledger.validators import epoch_of

if TYPE_CHECKING:
    from swarm.ledger.draft import Draft
    from swarm.ledger.keeping import Keeper, Report

__all__ = [
    "Panel",
    "audited_by",
    "auditors_of",
    "end_block",
]


def end_block(draft: Draft, height: int, beacon: bytes) -> None:
    """Begin, draw or settle the audit whose turn it is at this height, and fill seats."""
    params = draft.params
    number = height // params.audit_blocks
    begun = schedule.start(params, number)
    if not number:
        settled = False
    elif height == begun:
        draft.put_audit(Audit(number, begun, beacon))
        settled = False
    else:
        if height == schedule.answers_until(params, begun):
            _draw(draft, height, beacon)
        settled = height == schedule.reports_until(params, begun)
        if settled:
            _settle(draft, height)
    if settled or deals.posted_in(draft, height):
        deals.fill(draft, height, beacon)


def _draw(draft: Draft, height: int, beacon: bytes) -> None:
    epoch = epoch_of(height, draft.params.epoch_length)
    draft.put_audit(replace(_audit(draft), seed2=beacon, epoch=epoch))


def _settle(draft: Draft, height: int) -> None:
    audit = _audit(draft)
    members = draft.epoch_set(audit.epoch)
    reports: dict[bytes, Report] = {}
    for member in members.validators:
        said = draft.report(member.public_key)
        if said is not None:
            reports[member.public_key] = said
            draft.put_report(member.public_key, None)
    jury = capacity.Jury(Panel(audit.seed2, members, draft.params.auditors), reports)
    audited = [one for key in draft.keepers if (one := draft.keeper(key)) is not None]
    verdicts = {one.public_key: _verdict(draft, audit, jury, one) for one in audited}
    lost, unpaid = _missing(draft, jury, reports, verdicts)
    proven: dict[bytes, int] = {}
    unheard = 0
    for keeper in audited:
        key = keeper.public_key
        after = capacity.stand(draft, keeper, verdicts[key], audit.number, height)
        if after.verdict is Verdict.PROVEN and after.in_order:
            proven[key] = after.slots
        elif after.verdict is Verdict.UNDECIDED and after.in_order:
            unheard += after.proven
    earned = deals.settle(draft, audit.number, proven.keys(), lost, unpaid)
    paid = _pay_emission(draft, proven, unheard, earned)
    for key, amount in earned.items():
        account = draft.account(key)
        draft.put_account(
            replace(account, balance=account.balance + amount, earned=account.earned + amount)
        )
    draft.put_audit(replace(audit, settled=height, paid=paid))


def _verdict(draft: Draft, audit: Audit, jury: capacity.Jury, keeper: Keeper) -> Verdict:
    key = keeper.public_key
    if draft.answer(key, audit.number) is None:
        return Verdict.NO_ANSWER
    return jury.verdict(key, lambda report: key in report.failed)


def _missing(
    draft: Draft,
    jury: capacity.Jury,
    reports: dict[bytes, Report],
    verdicts: dict[bytes, Verdict],
) -> tuple[set[tuple[bytes, bytes, int]], set[tuple[bytes, bytes, int]]]:
    """Pieces that were not shown, and those about which the auditors do not agree.

    A keeper that lost a piece which it had shown before gets that verdict instead of its own.
    """
    lost: set[tuple[bytes, bytes, int]] = set()
    unpaid: set[tuple[bytes, bytes, int]] = set()
    for name in sorted({name for report in reports.values() for name in report.missing}):
        key, deal, at = name
        said = jury.verdict(key, partial(_names, name))
        if said is Verdict.UNDECIDED:
            unpaid.add(name)
        elif said is Verdict.FAILED:
            lost.add(name)
            seats = draft.seats(deal)
            shown = seats is not None and any(
                one.keeper == key and one.shown for one in seats.of[at]
            )
            if shown and not verdicts[key].is_strike:
                verdicts[key] = Verdict.LOST_PIECE
    return lost, unpaid


def _names(name: tuple[bytes, bytes, int], report: Report) -> bool:
    return name in report.missing


def _pay_emission(
    draft: Draft, proven: dict[bytes, int], unheard: int, earned: dict[bytes, int]
) -> int:
    """What is set aside for storage, by proven slots, added to `earned`; the rest goes back to the pool.

    The share of those about whom too few auditors spoke is part of the rest: nobody gains where others are silent.

    Args:
        draft: The state.
        proven: Slots, by keeper.
        unheard: Slots that earlier audits proved, of keepers about whom this one decided nothing.
        earned: By keeper; added to.

    Returns:
        What was paid.
    """
    money = draft.money
    slots = sum(proven.values())
    paid = money.storage * slots // (slots + unheard) if slots else 0
    if proven:
        for key, amount in zip(proven, rewards.split(paid, list(proven.values())), strict=True):
            earned[key] = earned.get(key, 0) + amount
    draft.put_money(
        replace(
            money,
            storage=0,
            pool=money.pool + money.storage - paid,
            emitted=money.emitted + paid,
        )
    )
    return paid


def _audit(draft: Draft) -> Audit:
    audit = draft.audit
    if audit is None:  # begun by height, at every height that comes here
        message = "no audit was begun"
        raise LookupError(message)
    return audit
