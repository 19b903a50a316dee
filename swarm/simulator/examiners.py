"""Who audits: a validator asks the keepers that it was drawn for, as `swarm.keeper.auditing` does, in virtual time.

Draws, checks and deadlines are the shipped ones. A request and its answer travel as any message; one that is lost is
sent again, as a connection does it, until the shipped wait for an answer is over; then the keeper is asked again, with the
shipped pauses, until the report is due.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from protocols.audit.draw import draw_slots
from protocols.audit.errors import AuditFailedError, Failure
from protocols.audit.messages import LeafAnswer, SlotAnswer
from protocols.audit.service import MAX_PAUSE_S, PAUSE_S, REQUEST_S
from protocols.audit.verify import Commitment, LeafCheck, Sealing, check_slot
from swarm.keeper import core
from swarm.ledger.draws import audited_by
from swarm.ledger.keeping import AuditPhase
from swarm.ledger.transactions import AuditReport

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from storage.slots import LeafProof, SlotProof
    from swarm.ledger.keeping import AuditState
    from swarm.ledger.state import LedgerView
    from swarm.simulator.accounts import Account
    from swarm.simulator.depot import Depot
    from swarm.simulator.lenders import Lender
    from swarm.simulator.liars import Behaviour

    Name = tuple[bytes, bytes, int]

RESEND_MS: Final = 200
"""What a connection lost it sends again after so long; what TCP waits at least."""


def examine(
    kept: Commitment,
    audit: AuditState,
    count: int,
    sealing: Sealing,
    leaves: Sequence[LeafProof],
    whole: Callable[[int], SlotProof | None],
) -> Failure | None:
    """Check all that a keeper shows of its slots; None if it is in order.

    Args:
        kept: What it had committed to.
        audit: With its answer.
        count: The chain's `audit_leaves`.
        sealing: How slots are sealed.
        leaves: That it shows.
        whole: Shows a whole slot, or nothing.
    """
    check = LeafCheck(kept, audit.seed, count, audit.answers[kept.keeper])
    try:
        for one in leaves:
            check.take(LeafAnswer(one.leaf, one.label, one.inner, one.path))
        check.finish()
        for slot in draw_slots(audit.seed2, kept.keeper, kept.slots):
            shown = whole(slot)
            if shown is None:
                return Failure.SILENT
            check_slot(kept, slot, SlotAnswer(shown.sealed, shown.label, shown.path), sealing)
    except AuditFailedError as error:
        return error.failure
    return None


@dataclass(slots=True)
class Round:
    """One audit by one validator; a keeper is silent until it has shown everything."""

    audit: AuditState
    asked: frozenset[bytes]
    failed: dict[bytes, int]
    missing: set[Name]
    due: frozenset[Name]
    life: object
    began: int
    waiting: set[bytes] = field(default_factory=set)


class Examiner:
    """A validator as it audits.

    Args:
        depot: Whom it audits.
        account: Which acts.
        behaviour: How it lies, if it does.
    """

    def __init__(self, depot: Depot, account: Account, behaviour: Behaviour) -> None:
        self.account = account
        self._depot = depot
        self._behaviour = behaviour
        self._schedule = depot.world.schedule
        self._done = 0
        self._round: Round | None = None

    def look(self, view: LedgerView) -> None:
        """A block is final where it lives."""
        audit = view.audit()
        if audit is None or audit.phase is not AuditPhase.REPORT or audit.number <= self._done:
            return
        if view.height < core.asks_from(view.params, audit) or self.account.key in audit.reported:
            return
        if self._is_over(audit):
            self._begin(view, audit)
        if self._round is not None:
            late = view.height >= core.report_by(view.params, audit)
            if late and self._is_cut_short(view, self._round):
                self._done, self._round = audit.number, None
            elif late or not self._round.waiting:
                self._report(self._round)

    def _is_over(self, audit: AuditState) -> bool:
        """Whether there is no round, or only one that its node forgot in a crash."""
        one = self._round
        return (
            one is None
            or one.audit.number != audit.number
            or one.life is not self.account.home.replica
        )

    def _is_cut_short(self, view: LedgerView, round_: Round) -> bool:
        """Whether blocks came so fast that some keeper's silence is not its own: nothing is reported then."""
        asked_ms = self._schedule.now - round_.began
        least_ms = 1000 * core.least_asking_s(view.params, round_.audit)
        return bool(round_.waiting) and self._behaviour.honest and asked_ms < least_ms

    def _begin(self, view: LedgerView, audit: AuditState) -> None:
        self._round, key = None, self.account.key
        members = view.validators(audit.epoch)
        if members.find(key) is None:
            return
        lending = {one.public_key: one for one in view.keepers() if one.slots}
        drawn = audited_by(key, audit.seed2, lending, members, view.params.auditors)
        if not drawn:
            self._done = audit.number
            return
        asked = [one for one in drawn if one in audit.answers and one != key]
        due = {
            (who, duty.deal, duty.piece)
            for who, duty in view.duties()
            if who in asked and duty.due <= audit.number
        }
        silent = dict.fromkeys(asked, int(Failure.SILENT))
        life = self.account.home.replica
        self._round = Round(
            audit,
            frozenset(asked),
            silent,
            set(due),
            frozenset(due),
            life,
            self._schedule.now,
            set(asked),
        )
        for who in asked:
            record = lending[who]
            kept = Commitment(who, record.root, record.slots)
            self._ask(self._round, kept, 1, self._schedule.now)

    # One keeper

    def _ask(self, round_: Round, kept: Commitment, attempt: int, since: int) -> None:
        """Send the request, or what was lost of it again."""
        if self._round is not round_:
            return
        lender = self._depot.lenders[kept.keeper]
        delay = self._way(self.account, lender.account)
        if delay is not None and lender.is_here:
            self._schedule.after(delay, self._asked, round_, kept, attempt, since)
        else:
            self._again(round_, kept, attempt, since)

    def _asked(self, round_: Round, kept: Commitment, attempt: int, since: int) -> None:
        """The keeper answers: what it shows takes a way of its own."""
        lender = self._depot.lenders[kept.keeper]
        delay = self._way(lender.account, self.account)
        if delay is not None and lender.is_here:
            delay += lender.shows_in_ms
            self._schedule.after(delay, self._shown, round_, kept, lender)
        else:
            self._again(round_, kept, attempt, since)

    def _again(self, round_: Round, kept: Commitment, attempt: int, since: int) -> None:
        now = self._schedule.now
        if now - since < 1000 * REQUEST_S:
            self._schedule.after(RESEND_MS, self._ask, round_, kept, attempt, since)
        else:
            first = min(int(1000 * PAUSE_S), self._depot.interval_ms)
            pause = min(first * 2 ** (attempt - 1), int(1000 * MAX_PAUSE_S))
            self._schedule.after(pause, self._ask, round_, kept, attempt + 1, now + pause)

    def _shown(self, round_: Round, kept: Commitment, lender: Lender) -> None:
        if self._round is not round_ or self.account.home.replica is not round_.life:
            return
        key = kept.keeper
        failure = lender.slots_in_order(kept, round_.audit)
        if failure is None:
            del round_.failed[key]
        else:
            round_.failed[key] = int(failure)
        for name in [one for one in round_.missing if one[0] == key]:
            if lender.shows(name, round_.audit):
                round_.missing.discard(name)
        round_.waiting.discard(key)

    def _way(self, source: Account, target: Account) -> int | None:
        """How long a message takes between two homes; None if this one is lost."""
        network, now = self._depot.world.network, self._schedule.now
        return min(network.delays(source.home.place, target.home.place, now), default=None)

    # The report

    def _report(self, round_: Round) -> None:
        said = self._behaviour.finds(round_)
        if said is None:
            self._done, self._round = round_.audit.number, None
            return
        failed, missing = said
        payload = AuditReport(
            round_.audit.number, tuple(sorted(failed.items())), tuple(sorted(missing))
        )
        if self.account.submit(payload):
            self._done, self._round = round_.audit.number, None
