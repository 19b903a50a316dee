"""Capacity: what keepers lend, how they answer and are reported on, and what their audits make of them.

A commitment stands from the block in which it is taken and is fixed while an audit is near or runs (`schedule.opens`),
so the root of the record is the root that is audited. A strike is a missing answer, or the word of more than half of the
auditors with more than two thirds of all draws; `strike_limit` strikes slash the collateral and suspend. One who is slashed while it is
suspended is dismissed. Its record stays, so that nobody leaves to be forgiven.
"""

# ruff: noqa: EM101, EM102 - a refusal's reason is what its receipt keeps
from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from swarm.ledger import schedule, validators
from swarm.ledger.draws import Panel
from swarm.ledger.errors import Refused
from swarm.ledger.keeping import Failure, Keeper, Report, Verdict
from swarm.ledger.validators import MAX_UNBONDING, release_height, unbond

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from swarm.ledger.draft import Draft
    from swarm.ledger.genesis import Params
    from swarm.ledger.keeping import Audit
    from swarm.ledger.transactions import AuditReport, CapacityAnswer, CapacityCommit

ROLE: Final = "keeper"
MIN_HEARD: Final = (1, 2)
"""More than this part of a keeper's auditors, and of their draws, has to have reported before anything counts as proven: the
word of one alone, while all others are silent, is the word of whoever made the others silent."""


def commit(draft: Draft, sender: bytes, asked: CapacityCommit, height: int) -> None:
    """Take what a keeper lends from now on, and lock or free its collateral.

    Raises:
        Refused: An audit is near or runs, no role, no funds, or no room among the keepers.
    """
    params = draft.params
    opens = schedule.opens(params, height)
    if opens > height:
        raise Refused(f"an audit is near or runs: commitments are taken from height {opens} on")
    account = draft.account(sender)
    before = draft.keeper(sender)
    if asked.slots == 0:
        if before is None or before.slots == 0:
            raise Refused("nothing is lent")
        _leave(draft, before, height)
        return
    if ROLE not in account.roles:
        raise Refused(f"only an account with the role {ROLE} lends slots")
    if before is None or before.slots == 0:
        _make_room(draft, asked.slots, height)
        following = height // params.audit_blocks + 1
        before = before or Keeper(sender, asked.root, 0, 0, height)
        before = replace(before, clean_since=following)
    due = max(0, asked.slots - params.free_slots) * params.keeper_bond
    if due > before.collateral:
        more = due - before.collateral
        if account.balance < more:
            raise Refused(f"the balance does not cover {more:,} more of collateral")
        draft.put_account(replace(account, balance=account.balance - more))
    else:
        _give_back(draft, sender, before.collateral - due, height)
    draft.put_keeper(
        replace(
            before,
            root=asked.root,
            slots=asked.slots,
            collateral=due,
            committed=height,
            proven=min(before.proven, asked.slots),
        )
    )


def answer(draft: Draft, sender: bytes, asked: CapacityAnswer, height: int) -> None:
    """Take a keeper's answer.

    Raises:
        Refused: Answers are closed, it lends nothing, or it answered.
    """
    audit = _running(draft, asked.audit)
    if audit.seed2:
        raise Refused("answers are closed")
    keeper = draft.keeper(sender)
    if keeper is None or keeper.slots == 0:
        raise Refused("only one who lends slots answers")
    if draft.answer(sender, audit.number) is not None:
        raise Refused("already answered")
    draft.put_answer(sender, audit.number, asked.root)


def report(draft: Draft, sender: bytes, asked: AuditReport, height: int) -> None:
    """Take an auditor's report.

    Raises:
        Refused: Reports are closed, it is no validator, reported before, or names what it was not drawn for.
    """
    audit = _running(draft, asked.audit)
    if not audit.seed2:
        raise Refused("reports are not open yet")
    members = draft.epoch_set(audit.epoch)
    if members.find(sender) is None:
        raise Refused("only a validator of the audit's epoch reports")
    before = draft.report(sender)
    if before is not None and before.audit == audit.number:
        raise Refused("already reported")
    panel = Panel(audit.seed2, members, draft.params.auditors)
    keepers = set(draft.keepers)
    for key in {key for key, *_ in (*asked.failed, *asked.missing)}:
        if key not in keepers or sender not in panel.of(key):
            raise Refused("it names a keeper that it was not drawn for")
    for key, deal, at in asked.missing:
        seats = draft.seats(deal)
        if seats is None or at >= len(seats.of):
            raise Refused("it names a piece that nobody keeps")
        if not any(one.keeper == key and one.due <= audit.number for one in seats.of[at]):
            raise Refused("it names a piece that the keeper does not have to show")
    failed = {key: Failure(reason) for key, reason in asked.failed}
    draft.put_report(sender, Report(audit.number, failed, frozenset(asked.missing)))


class Jury:
    """What the auditors of an audit said: their word counts as often as they were drawn."""

    def __init__(self, panel: Panel, reports: Mapping[bytes, Report]) -> None:
        self._panel = panel
        self._reports = reports

    def verdict(self, keeper: bytes, names: Callable[[Report], bool]) -> Verdict:
        """What they find of one keeper: `FAILED`, `PROVEN` or `UNDECIDED`.

        Args:
            keeper: Whose auditors are asked.
            names: Whether a report names what is asked about.

        Returns:
            `UNDECIDED` where too few reported, or they contradict each other.
        """
        votes = self._panel.of(keeper)
        said = {key: report for key in votes if (report := self._reports.get(key)) is not None}
        named = {key for key, report in said.items() if names(report)}
        heard, against = (sum(votes[key] for key in keys) for keys in (said, named))
        whole = sum(votes.values())
        if 3 * against > 2 * whole and 2 * len(named) > len(votes):
            return Verdict.FAILED
        is_heard = _is_most(heard, whole) and _is_most(len(said), len(votes))
        return Verdict.PROVEN if is_heard and heard > 2 * against else Verdict.UNDECIDED


def _is_most(part: int, whole: int) -> bool:
    least, of = MIN_HEARD
    return part * of > whole * least


def stand(draft: Draft, keeper: Keeper, verdict: Verdict, number: int, height: int) -> Keeper:
    """What an audit makes of a keeper.

    Args:
        draft: The state.
        keeper: As it was audited.
        verdict: What was found.
        number: Of the audit.
        height: Of this block.

    Returns:
        Its record from now on, which is put.
    """
    params = draft.params
    if verdict.is_strike:
        after = _struck(draft, replace(keeper, verdict=verdict), number, height)
    elif verdict is Verdict.PROVEN:
        after = _clean(replace(keeper, verdict=verdict, proven=keeper.slots), number, params)
    else:
        since = keeper.clean_since + 1 if keeper.clean_since <= number else keeper.clean_since
        after = replace(keeper, verdict=verdict, clean_since=since)
    if after != keeper:
        draft.put_keeper(after)
    return after


def _clean(keeper: Keeper, number: int, params: Params) -> Keeper:
    """Forgiven a strike, or back in good standing, after a clean stretch."""
    if not keeper.strikes and not keeper.suspended:
        return keeper
    if number - keeper.clean_since + 1 < params.standing_audits:
        return keeper
    if keeper.suspended:
        return replace(keeper, suspended=False, strikes=0, clean_since=number + 1)
    return replace(keeper, strikes=keeper.strikes - 1, clean_since=number + 1)


def _struck(draft: Draft, keeper: Keeper, number: int, height: int) -> Keeper:
    params = draft.params
    keeper = replace(keeper, strikes=keeper.strikes + 1, clean_since=number + 1)
    if keeper.strikes < params.strike_limit:
        return keeper
    taken = keeper.collateral * params.slash_part // validators.WHOLE
    money = draft.money
    draft.put_money(replace(money, burned=money.burned + taken))
    again = keeper.suspended
    keeper = replace(
        keeper, collateral=keeper.collateral - taken, proven=0, strikes=0, suspended=True
    )
    return _leave(draft, keeper, height) if again else keeper


def _leave(draft: Draft, keeper: Keeper, height: int) -> Keeper:
    """It lends nothing any more; its collateral unbonds."""
    _give_back(draft, keeper.public_key, keeper.collateral, height)
    left = replace(keeper, slots=0, collateral=0, proven=0)
    draft.put_keeper(left)
    return left


def _give_back(draft: Draft, key: bytes, amount: int, height: int) -> None:
    """Collateral on its way out; where too many amounts are, it joins the last of them."""
    if not amount:
        return
    account, release = draft.account(key), release_height(draft, height)
    if len(account.unbonding) >= MAX_UNBONDING:
        amount += account.unbonding[-1].amount
        account = replace(account, unbonding=account.unbonding[:-1])
    draft.put_account(unbond(account, amount, release))


def _make_room(draft: Draft, slots: int, height: int) -> None:
    """Where all places are taken, the one who proved least gives way to one who lends more."""
    most = draft.params.max_keepers
    if len(draft.keepers) < most:
        return
    standing = [one for key in draft.keepers if (one := draft.keeper(key)) is not None]
    least = min(standing, key=lambda one: (one.proven, one.slots, one.public_key), default=None)
    if least is None or least.slots >= slots:
        raise Refused(f"{most:,} keepers lend, and none of the least as few as {slots:,} slots")
    _leave(draft, least, height)


def _running(draft: Draft, number: int) -> Audit:
    audit = draft.audit
    if audit is None or audit.settled >= 0 or audit.number != number:
        raise Refused(f"audit {number} does not run")
    return audit
