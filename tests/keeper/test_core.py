from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from storage.slots import Version
from swarm.keeper import core
from swarm.keeper.core import Adopt, Commit, Due, Own, Settle, Shrink
from swarm.ledger import schedule
from swarm.ledger.genesis import Params
from swarm.ledger.holdings import Account
from swarm.ledger.keeping import AuditPhase, AuditState, Duty, Failure, Keeper, Verdict

PARAMS = Params(
    audit_blocks=100, audit_answer_blocks=4, audit_report_blocks=8, keeper_bond=10, free_slots=0
)
KEY = b"k" * 32
OPEN = 130
"""A height at which commitments are taken, and early in an audit's blocks."""
RICH = Account(KEY, balance=10**9, roles=("keeper",))


def root(slots: int) -> bytes:
    return hashlib.sha256(slots.to_bytes(4, "big")).digest()


def counted(slots: int, **fields) -> Keeper:
    return Keeper(KEY, root(slots), slots, slots * 10, 0, **fields)


def own(sealed: int, settled: int = 0, **fields) -> Own:
    shown = {"goal": 1_000, "stay": sealed, **fields}
    return Own(sealed, Version(root(settled), settled), **shown)


def step(height: int, keeper: Keeper | None, slots: Own, account: Account = RICH):
    return core.next_step(height, PARAMS, account, keeper, slots)


def test_the_first_slot_is_committed_at_once_and_then_each_doubling():
    assert step(OPEN, None, own(0)) is None
    assert step(OPEN, None, own(1)) == Commit(1)
    assert step(OPEN, counted(10), own(19, 10)) is None
    assert step(OPEN, counted(10), own(20, 10)) == Commit(20)


def test_all_that_is_sealed_is_committed_before_each_audit_and_when_sealing_is_done():
    assert step(OPEN, counted(100), own(110, 100, goal=110)) == Commit(110)
    assert step(OPEN, counted(100), own(101, 100, goal=101)) is None
    closes = 200 - schedule.closed_blocks(PARAMS)
    assert step(closes - 5, counted(100), own(101, 100)) == Commit(101)


@pytest.mark.parametrize("height", range(100, 320))
def test_nothing_is_committed_that_the_next_blocks_would_refuse(height):
    done = step(height, None, own(10))
    if done is not None:
        assert schedule.opens(PARAMS, height + 1) == height + 1
        assert schedule.opens(PARAMS, height + 2) == height + 2
    else:
        assert schedule.opens(PARAMS, height + 2) > height + 2 or (
            schedule.opens(PARAMS, height + 1) > height + 1
        )


def test_what_the_ledger_counts_is_adopted_whatever_else_there_is_to_do():
    assert step(OPEN, counted(20), own(30, 10, waiting=True)) == Adopt(20)
    assert step(100, counted(20), own(30, 40)) == Adopt(20)


def test_slots_that_do_not_fit_go_at_once_if_the_ledger_does_not_count_them():
    assert step(100, counted(20), own(50, 20, stay=30)) == Shrink(30)
    assert step(100, counted(20), own(50, 20, stay=5)) == Shrink(20)
    assert step(100, None, own(50, stay=0)) == Shrink(0)


def test_counted_slots_are_given_back_after_the_ledger_counts_fewer():
    slots = own(20, 20, stay=5)
    assert step(100, counted(20), slots) is None  # an audit asks for them
    assert step(OPEN, counted(20), slots) == Commit(5)
    assert step(OPEN, counted(20), replace(slots, waiting=True)) is None
    assert step(OPEN, counted(5), replace(slots, sealed=20)) == Adopt(5)
    assert step(OPEN, counted(5), own(20, 5, stay=5)) == Shrink(5)


def test_a_disk_that_is_nearly_full_waits_for_no_ledger():
    assert step(100, counted(20), own(20, 20, stay=5, urgent=True)) == Shrink(5)


def test_lending_nothing_takes_all_back():
    assert step(OPEN, counted(20), own(20, 20, stay=0, goal=0)) == Commit(0)


def test_slots_that_are_lost_are_committed_as_they_are_before_an_audit_asks_for_them():
    assert step(OPEN, counted(20), own(8, 0, provable=False)) == Commit(8)
    assert step(OPEN, counted(20), own(0, 0, provable=False)) == Commit(0)


def test_only_slots_whose_collateral_is_covered_are_committed():
    poor = replace(RICH, balance=100)
    assert step(OPEN, None, own(50), poor) == Commit(9)  # a tenth pays fees
    assert step(OPEN, counted(9), own(50, 9), replace(poor, balance=0)) is None


def test_nothing_is_lent_without_the_role_or_while_dismissed_or_just_refused():
    assert step(OPEN, None, own(50), replace(RICH, roles=())) is None
    assert step(OPEN, counted(0, suspended=True), own(50)) is None
    assert step(OPEN, None, own(50, refused=True)) is None


def audit(phase: AuditPhase, **fields) -> AuditState:
    shown = {"answers": {}, "reported": frozenset(), "paid": 0, **fields}
    return AuditState(1, 100, 104, 112, phase, b"s" * 32, b"", -1, **shown)


def test_an_answer_is_owed_once_and_in_its_blocks_only():
    assert core.owes_answer(audit(AuditPhase.ANSWER), counted(3))
    assert not core.owes_answer(audit(AuditPhase.ANSWER, answers={KEY: b""}), counted(3))
    assert not core.owes_answer(audit(AuditPhase.REPORT), counted(3))
    assert not core.owes_answer(audit(AuditPhase.ANSWER), counted(0))
    assert not core.owes_answer(None, counted(3))


def test_a_report_is_sent_while_blocks_are_left_that_take_it():
    assert core.report_by(PARAMS, audit(AuditPhase.REPORT)) == 109
    tight = replace(PARAMS, audit_report_blocks=2)
    assert core.report_by(tight, replace(audit(AuditPhase.REPORT), reports_until=106)) == 105


def test_an_auditor_asks_a_block_after_the_answers_closed_if_that_leaves_one():
    assert core.asks_from(PARAMS, audit(AuditPhase.REPORT)) == 105
    assert core.least_asking_s(PARAMS, audit(AuditPhase.REPORT)) == 4 * 2.5 / 2
    tight = replace(PARAMS, audit_report_blocks=2)
    short = replace(audit(AuditPhase.REPORT), reports_until=106)
    assert core.asks_from(tight, short) == 104
    assert core.least_asking_s(tight, short) == 2.5 / 2


def test_a_hold_ends_with_its_seat_and_other_holds_are_not_touched():
    duty = Duty(b"d" * 32, 3, b"root", 10, 1, shown=False)
    stays = (b"root", core.label(duty))
    gone = (b"root", core.label(replace(duty, piece=4)))
    other = (b"root", "checkpoint 3 model")
    assert core.stale_holds([stays, gone, other], [duty]) == [gone]


def test_an_audit_pays_its_share_of_emission_and_each_piece_that_was_shown():
    good = {"verdict": Verdict.PROVEN}
    keepers = [
        counted(30, proven=30, **good),
        replace(counted(10, proven=10, **good), public_key=b"o" * 32),
    ]
    due = [Due(b"d", 0, 5), Due(b"d", 1, 7)]
    settled = audit(AuditPhase.SETTLED, paid=100)
    assert core.earned(settled, keepers, KEY, due, [(b"d", 1)]) == 75 + 5
    struck = [replace(keepers[0], verdict=Verdict.NO_ANSWER), keepers[1]]
    assert core.earned(settled, struck, KEY, due, []) == 0


def test_a_verdict_is_told_with_what_most_auditors_named():
    named = [Failure.SILENT, Failure.OTHER_CONTENT, Failure.OTHER_CONTENT]
    assert "does not unseal" in core.reason_of(Verdict.FAILED, named)
    assert all(core.reason_of(one, []) for one in Verdict)


def test_what_was_replaced_is_committed_a_batch_at_a_time_and_only_once():
    waiting = own(100, 100, replaced=8, goal=200)
    assert step(OPEN, counted(100), waiting) is None
    assert step(OPEN, counted(100), replace(waiting, is_ripe=True)) == Commit(100)
    sent = replace(waiting, is_ripe=True, waiting=True, sent=100)
    assert step(OPEN, counted(100), sent) is None
    assert step(199, counted(100), replace(waiting, is_ripe=True)) is None


def test_what_was_replaced_is_settled_without_the_ledger_where_it_counts_nothing():
    waiting = own(100, 0, replaced=8, is_ripe=True)
    assert step(OPEN, None, waiting) == Settle()
    assert step(OPEN, None, replace(waiting, waiting=True)) is None


def test_slots_of_a_commitment_under_way_are_not_given_back():
    fewer = own(100, 50, stay=40, waiting=True, sent=80)
    assert step(OPEN, counted(50), fewer) == Shrink(80)
    assert step(OPEN, counted(50), replace(fewer, urgent=True)) == Shrink(40)
