from __future__ import annotations

import random
from fractions import Fraction
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.keeper import core
from swarm.ledger import schedule
from swarm.ledger.audits import Panel
from swarm.ledger.capacity import Jury
from swarm.ledger.errors import GenesisError
from swarm.ledger.execute import check_supply
from swarm.ledger.genesis import Params
from swarm.ledger.holdings import EpochSet, EpochValidator
from swarm.ledger.keeping import AuditPhase, AuditState, Failure, Report, Verdict
from swarm.ledger.transactions import (
    AuditReport,
    CapacityAnswer,
    CapacityCommit,
    KeepEnd,
    KeepPost,
    Register,
    Transfer,
    Withdraw,
)
from swarm.ledger.vrf import VrfKey
from tests.ledger.alone import ALICE, VALIDATOR, open_alone
from tests.ledger.lending import ANSWERS, BLOCKS, OPEN, REPORTS, Lending, capacity_root
from tests.ledger.world import make_genesis, root, signer

SILENT = int(Failure.SILENT)


@pytest.fixture
def world():
    return Lending("kim", "lee")


@pytest.fixture
def kim(world):
    return world.people["kim"]


@pytest.fixture
def lee(world):
    return world.people["lee"]


# Commitments


def test_a_commitment_locks_collateral_and_a_smaller_one_unbonds_it(world, kim):
    held = world.account(kim).balance
    assert (world.keeper(kim).slots, world.keeper(kim).collateral) == (100, 1_000)
    assert world.lend(kim, 150, "more") == ""
    assert world.account(kim).balance == held - 500
    assert world.keeper(kim).root == capacity_root("more")
    assert world.lend(kim, 20) == ""
    assert world.keeper(kim).collateral == 200
    assert [one.amount for one in world.account(kim).unbonding] == [1_300]


def test_only_a_keeper_lends_and_only_what_it_can_back(world):
    bob, poor = world.people["bob"], signer("poor")
    assert "role" in world.lend(bob, 1)
    assert "nothing is lent" in world.lend(bob, 0)
    world.keep(poor)
    assert "collateral" in world.lend(poor, 1)
    assert world.view.keeper(poor.public_key) is None
    world.keep(bob)
    dear = Lending(keeper_bond=10**15)
    dear.keep(bob)
    assert "collateral" in dear.lend(bob, 2**32)
    assert [one.public_key for one in world.view.keepers()] == sorted(
        one.public_key for one in world.keepers
    )


def test_who_takes_all_slots_back_with_a_clean_record_is_forgotten(world, kim):
    world.audit(*world.keepers)
    world.to(OPEN)
    assert world.lend(kim, 0) == ""
    assert world.keeper(kim) is None
    assert kim.public_key not in [one.public_key for one in world.view.keepers()]
    assert world.account(kim).unbonding[0].amount == 1_000
    world.blocks(30)
    assert world.run(kim, Withdraw()) == ""


def test_the_role_is_given_up_after_the_slots(world, kim):
    asked = Register(VrfKey.of(kim.seed).public_key, "disk", ())
    assert "before it gives up the role" in world.run(kim, asked)
    assert world.lend(kim, 0) == ""
    assert world.run(kim, asked) == ""


def test_no_commitment_is_taken_while_an_audit_is_near_or_runs(world, kim):
    taken = {}
    for _ in range(2 * BLOCKS):
        height = world.height + 1
        error = world.lend(kim, 100 + height)
        taken[height % BLOCKS, height // BLOCKS > 0] = not error
        if error:
            opens = schedule.opens(world.genesis.params, height)
            assert opens > height
            assert str(opens) in error
    closed = BLOCKS - schedule.closed_blocks(world.genesis.params)
    for (place, _), ok in taken.items():
        if place >= closed:
            assert not ok
    for place in range(BLOCKS):
        if (place, True) in taken:
            assert taken[place, True] == (OPEN <= place < closed)


def test_commitments_open_again_at_the_height_that_the_refusal_names():
    params = make_genesis([signer("v")]).params
    for blocks, answers, reports in ((1440, 4, 8), (20, 2, 3), (5, 1, 2), (15, 4, 8)):
        params = Params(
            audit_blocks=blocks, audit_answer_blocks=answers, audit_report_blocks=reports
        )
        for height in range(1, 3 * blocks):
            opens = schedule.opens(params, height)
            assert opens >= height
            assert schedule.opens(params, opens) == opens


def test_an_audit_that_leaves_no_block_before_the_next_is_no_genesis():
    genesis = make_genesis([signer("v")])
    with pytest.raises(GenesisError, match="audit"):
        genesis.with_params(audit_blocks=13)
    assert genesis.with_params(audit_blocks=14)


def test_reports_that_no_auditor_could_send_in_time_are_no_genesis():
    genesis = make_genesis([signer("v")])
    with pytest.raises(GenesisError, match=r"audit_report_blocks is 1: .* 2 at least"):
        genesis.with_params(audit_report_blocks=1)
    assert genesis.with_params(audit_report_blocks=2)


AUDITED = make_genesis([signer("v")])


@given(
    answers=st.integers(1, 40),
    reports=st.integers(1, 40),
    free=st.integers(0, 60),
    number=st.integers(1, 9),
)
def test_with_every_genesis_each_part_of_an_audit_can_be_done_by_a_node(
    answers, reports, free, number
):
    try:
        params = AUDITED.with_params(
            audit_answer_blocks=answers,
            audit_report_blocks=reports,
            audit_blocks=answers + reports + free,
        ).params
    except GenesisError:
        assert reports == 1 or free < 2
        return
    begun = schedule.start(params, number)
    answers_end = schedule.answers_until(params, begun)
    audit = AuditState(
        number,
        begun,
        answers_end,
        schedule.reports_until(params, begun),
        AuditPhase.REPORT,
        b"",
        b"",
        -1,
        0,
        {},
        frozenset(),
    )
    assert begun < answers_end <= core.asks_from(params, audit)
    assert core.asks_from(params, audit) < core.report_by(params, audit) < audit.reports_until
    assert audit.reports_until + 1 < schedule.start(params, number + 1)
    between = range(audit.reports_until, schedule.start(params, number + 1))
    sent = [height for height in between if core.is_open(params, height)]
    assert sent  # commitments, by which keepers come, grow and leave
    assert all(schedule.opens(params, height + 1) == height + 1 for height in sent)
    for height in (begun, answers_end, *between):
        assert height < schedule.start(params, schedule.first_due(params, height))


def test_where_all_places_are_taken_the_least_proven_gives_way_to_more_slots():
    world = Lending("kim", "lee", max_keepers=2)
    kim, lee, bob = world.people["kim"], world.people["lee"], world.people["bob"]
    world.audit(kim, lee, failed={lee: SILENT})
    world.to(OPEN)
    world.keep(bob)
    assert "none of the least" in world.lend(bob, 100)
    assert world.lend(bob, 101) == ""
    assert [one.public_key for one in world.view.keepers()] == sorted(
        (kim.public_key, bob.public_key)
    )
    assert world.keeper(lee).strikes == 1  # to leave is not to be forgiven
    assert world.account(lee).unbonding[-1].amount == 1_000


# Answers and reports


def test_an_audit_goes_through_its_phases_by_height_alone(world, kim):
    assert world.view.audit() is None
    world.to(0)
    audit = world.view.audit()
    assert (audit.number, audit.start, audit.phase) == (1, BLOCKS, AuditPhase.ANSWER)
    assert audit.seed == world.view.beacon
    assert audit.answers_until == BLOCKS + ANSWERS
    world.ok((kim, CapacityAnswer(1, b"a" * 32)))
    assert world.view.audit().answers == {kim.public_key: b"a" * 32}
    world.to(ANSWERS)
    audit = world.view.audit()
    assert (audit.phase, audit.seed2) == (AuditPhase.REPORT, world.view.beacon)
    world.ok((world.validators[0], AuditReport(1, (), ())))
    assert world.view.audit().reported == {world.validators[0].public_key}
    world.to(ANSWERS + REPORTS)
    assert world.view.audit().phase is AuditPhase.SETTLED
    assert world.view.audit().reported == frozenset()
    world.to(0)
    assert (world.view.audit().number, world.view.audit().answers) == (2, {})


def test_an_answer_counts_once_and_in_its_blocks_and_from_a_keeper(world, kim, lee):
    asked = CapacityAnswer(1, b"a" * 32)
    assert "does not run" in world.run(kim, asked)
    world.to(BLOCKS - 1)
    assert "does not run" in world.run(kim, asked)  # in the block that begins it
    assert "does not run" in world.run(kim, CapacityAnswer(2, b"a" * 32))
    inside = world.tx(kim, asked), world.tx(world.people["bob"], asked)
    receipts = world.block(*inside)
    assert receipts[0].error == ""
    assert "only one who lends" in receipts[1].error
    world.to(ANSWERS)
    assert "answers are closed" in world.run(lee, asked)
    world.to(0)
    assert world.run(kim, CapacityAnswer(2, b"b" * 32)) == ""
    assert "already answered" in world.run(kim, CapacityAnswer(2, b"c" * 32))


def test_a_report_counts_once_from_a_validator_and_names_whom_it_was_drawn_for(world, kim, lee):
    world.to(0)
    one = world.validators[0]
    assert "not open yet" in world.run(one, AuditReport(1, (), ()))
    world.to(ANSWERS)
    audit = world.view.audit()
    panel = Panel(audit.seed2, world.view.validators(audit.epoch), 3)
    stranger = next(
        who for who in world.validators if who.public_key not in panel.of(kim.public_key)
    )
    named = ((kim.public_key, SILENT),)
    receipts = world.block(
        world.tx(world.people["bob"], AuditReport(1, (), ())),
        world.tx(stranger, AuditReport(1, named, ())),
        world.tx(one, AuditReport(1, ((signer("nobody").public_key, SILENT),), ())),
        world.tx(one, AuditReport(1, (), ((lee.public_key, b"d" * 32, 0),))),
        world.tx(one, AuditReport(1, (), ())),
        world.tx(one, AuditReport(1, (), ())),
    )
    words = [receipt.error for receipt in receipts]
    assert "only a validator" in words[0]
    assert "not drawn for" in words[1]
    assert "not drawn for" in words[2]
    assert words[3]
    assert words[4] == ""
    assert "already reported" in words[5]


# Verdicts


def test_who_answered_and_is_not_named_is_proven_and_paid_by_slots(world, kim, lee):
    world.to(OPEN)
    assert world.lend(lee, 300) == ""
    world.answers(kim, lee)
    before = world.account(kim).balance, world.account(lee).balance
    world.to(ANSWERS + REPORTS - 1)
    aside = world.view.money().storage
    assert aside > 0
    world.reports()
    paid = (
        world.account(kim).balance - before[0],
        world.account(lee).balance - before[1],
    )
    total = world.view.audit().paid
    assert sum(paid) == total >= aside
    assert paid[0] == total // 4 or paid[0] == total // 4 + 1
    assert world.account(kim).earned == paid[0]
    assert (world.keeper(kim).proven, world.keeper(lee).proven) == (100, 300)
    assert world.keeper(kim).verdict is Verdict.PROVEN


def test_who_does_not_answer_gets_a_strike_whatever_is_reported(world, kim, lee):
    world.audit(lee)
    assert (world.keeper(kim).strikes, world.keeper(kim).verdict) == (1, Verdict.NO_ANSWER)
    assert world.keeper(kim).proven == 0
    assert world.account(kim).earned == 0
    assert world.keeper(lee).verdict is Verdict.PROVEN


def test_who_is_named_by_all_its_auditors_gets_a_strike_and_no_pay(world, kim, lee):
    world.audit(kim, lee, failed={kim: SILENT})
    assert (world.keeper(kim).strikes, world.keeper(kim).verdict) == (1, Verdict.FAILED)
    assert world.account(kim).earned == 0
    assert world.account(lee).earned == world.view.audit().paid > 0


def test_without_a_report_there_is_no_verdict_and_nothing_is_paid(world, kim, lee):
    world.answers(kim, lee)
    pool = world.view.money().pool
    world.reports(by=())
    assert (world.keeper(kim).strikes, world.keeper(kim).verdict) == (0, Verdict.UNDECIDED)
    assert world.keeper(kim).proven == 0
    money = world.view.money()
    assert world.view.audit().paid == 0
    assert money.pool > pool - money.storage  # what was set aside went back


def test_a_strike_takes_more_than_two_thirds_of_the_auditors_and_a_proof_more_than_half_of_reports():
    world = Lending("kim", auditors=9)
    kim = world.people["kim"]
    seen = set()
    for _ in range(8):
        world.answers(kim)
        audit = world.view.audit()
        votes = Panel(audit.seed2, world.view.validators(audit.epoch), 9).of(kim.public_key)
        drawn = [one for one in world.validators if one.public_key in votes]
        liars = drawn[: len(seen) % len(drawn) + 1]
        named = ((kim.public_key, SILENT),)
        world.ok(
            *[
                (one, AuditReport(audit.number, named if one in liars else (), ()))
                for one in world.validators
            ]
        )
        world.to(ANSWERS + REPORTS)
        against = sum(votes[one.public_key] for one in liars)
        if against > 6:
            expected = Verdict.FAILED
        else:
            expected = Verdict.PROVEN if against < 4.5 else Verdict.UNDECIDED
        assert world.keeper(kim).verdict is expected
        seen.add((expected, against))
    assert {verdict for verdict, _ in seen} == {
        Verdict.FAILED,
        Verdict.PROVEN,
        Verdict.UNDECIDED,
    }


def test_one_auditor_that_reports_alone_cannot_strike(world, kim, lee):
    for _ in range(6):
        world.answers(kim, lee)
        audit = world.view.audit()
        panel = Panel(audit.seed2, world.view.validators(audit.epoch), 3)
        alone = next(one for one in world.validators if one.public_key in panel.of(kim.public_key))
        if panel.of(kim.public_key)[alone.public_key] < 3:
            world.reports(failed={kim: SILENT}, by=[alone])
            assert world.keeper(kim).verdict is Verdict.UNDECIDED
            return
        world.to(ANSWERS + REPORTS)
    pytest.fail("one auditor was drawn three times in every audit")


def heard_by(world, kim, count):
    """Run an audit in which so many of its auditors report; what part of them, and of their draws, was heard."""
    world.answers(*world.keepers)
    audit = world.view.audit()
    votes = Panel(audit.seed2, world.view.validators(audit.epoch), 9).of(kim.public_key)
    said = [one for one in world.validators if one.public_key in votes][:count]
    world.reports(by=said)
    heard = sum(votes[one.public_key] for one in said)
    return Fraction(len(said), len(votes)), Fraction(heard, sum(votes.values()))


def test_nothing_is_proven_by_half_of_the_auditors_or_of_their_draws_or_fewer():
    world = Lending("kim", auditors=9)
    kim = world.people["kim"]
    seen = set()
    for count in (4, 1, 2, 3, 2, 3, 2, 1, 2, 3):
        heads, draws = heard_by(world, kim, count)
        expected = Verdict.PROVEN if min(heads, draws) > Fraction(1, 2) else Verdict.UNDECIDED
        assert (heads, draws, world.keeper(kim).verdict) == (heads, draws, expected)
        assert (world.keeper(kim).strikes, world.keeper(kim).proven) == (0, 100)
        seen.add((expected, heads > Fraction(1, 2), draws > Fraction(1, 2)))
    assert (Verdict.UNDECIDED, False, True) in seen, "many draws of few"
    assert (Verdict.PROVEN, True, True) in seen


def test_one_auditor_that_was_drawn_for_most_cannot_strike_alone():
    """Its line may be cut: more than half of the auditors have to say so as well."""
    of = EpochSet(0, b"s", tuple(EpochValidator(bytes([at]) * 32, b"v", 1) for at in range(4)))
    panel = Panel(b"seed", of, 3)
    for at in range(10_000):
        keeper = at.to_bytes(32, "big")
        votes = panel.of(keeper)
        one = max(votes, key=votes.__getitem__)
        if 3 * votes[one] > 2 * sum(votes.values()):
            break
    else:
        pytest.fail("nobody was drawn for two thirds")
    named, fine = Report(1, {keeper: SILENT}, frozenset()), Report(1, {}, frozenset())
    reports = {key: named if key == one else fine for key in votes}
    assert Jury(panel, reports).verdict(keeper, lambda said: keeper in said.failed) is (
        Verdict.UNDECIDED
    )
    reports = dict.fromkeys(votes, named)
    assert Jury(panel, reports).verdict(keeper, lambda said: keeper in said.failed) is (
        Verdict.FAILED
    )


def test_nobody_gains_where_the_auditors_of_another_are_silent(world, kim, lee):
    """The share of the undecided returns to the pool, so that a keeper's friends do not keep silent about others."""
    for _ in range(2):
        world.audit(kim, lee)
    whole = world.view.audit().paid
    for _ in range(9):
        world.answers(kim, lee)
        audit = world.view.audit()
        panel = Panel(audit.seed2, world.view.validators(audit.epoch), 3)
        for silent in combinations([one.public_key for one in world.validators], 2):
            mine, theirs = (
                {key: often for key, often in panel.of(who.public_key).items() if key not in silent}
                for who in (kim, lee)
            )
            is_lee_heard = 2 * len(theirs) > len(panel.of(lee.public_key)) and 2 * sum(
                theirs.values()
            ) > sum(panel.of(lee.public_key).values())
            if is_lee_heard and 2 * len(mine) <= len(panel.of(kim.public_key)):
                break
        else:
            world.reports()
            continue
        before = world.account(lee).earned
        world.reports(by=[one for one in world.validators if one.public_key not in silent])
        assert world.keeper(kim).verdict is Verdict.UNDECIDED
        assert world.keeper(lee).verdict is Verdict.PROVEN
        paid = world.view.audit().paid
        assert world.account(lee).earned - before == paid == pytest.approx(whole / 2, rel=0.01)
        return
    pytest.fail("both had the same auditors in every audit")


# Strikes


def test_strikes_slash_and_suspend_and_the_collateral_is_burned(world, kim, lee):
    world.audit(kim, lee)
    burned = world.view.money().burned
    for _ in range(3):
        world.audit(lee)
    keeper = world.keeper(kim)
    assert (keeper.suspended, keeper.strikes, keeper.proven) == (True, 0, 0)
    assert keeper.collateral == 900
    assert world.view.money().burned == burned + 100
    assert keeper.slots == 100


def test_a_suspended_keeper_is_not_paid_and_returns_after_a_clean_stretch(world, kim, lee):
    for _ in range(3):
        world.audit(lee)
    earned = world.account(kim).earned
    for _ in range(2):
        world.audit(kim, lee)
        assert world.keeper(kim).suspended
        assert world.account(kim).earned == earned
    world.audit(kim, lee)
    assert not world.keeper(kim).suspended
    assert world.account(kim).earned > earned


def test_a_strike_is_forgiven_after_a_clean_stretch_and_another_begins_it_anew(world, kim, lee):
    world.audit(lee)
    world.audit(kim, lee)
    world.audit(lee)
    for _ in range(2):
        world.audit(kim, lee)
        assert world.keeper(kim).strikes == 2
    world.audit(kim, lee)
    assert world.keeper(kim).strikes == 1
    world.audit(kim, lee)
    assert world.keeper(kim).strikes == 1


def test_audits_without_a_verdict_do_not_count_as_clean(world, kim, lee):
    world.audit(lee)
    for _ in range(5):
        world.audit(kim, lee, by=())
    assert world.keeper(kim).strikes == 1
    for _ in range(2):
        world.audit(kim, lee)
        assert world.keeper(kim).strikes == 1
    world.audit(kim, lee)
    assert world.keeper(kim).strikes == 0


def test_one_slashed_while_suspended_is_dismissed_and_stays_on_record(world, kim, lee):
    for _ in range(6):
        world.audit(lee)
    keeper = world.keeper(kim)
    assert (keeper.slots, keeper.collateral, keeper.suspended) == (0, 0, True)
    assert [one.public_key for one in world.view.keepers()] == [lee.public_key]
    assert world.account(kim).unbonding[0].amount == 810
    world.to(OPEN)
    assert world.lend(kim, 5) == ""
    assert world.keeper(kim).suspended


def test_who_leaves_and_comes_back_has_its_strikes_still(world, kim, lee):
    world.audit(lee)
    world.to(OPEN)
    assert world.lend(kim, 0) == ""
    assert world.keeper(kim).strikes == 1
    for _ in range(4):
        world.audit(lee)
    assert world.keeper(kim).strikes == 1
    world.to(OPEN)
    assert world.lend(kim, 5) == ""
    world.audit(kim, lee)
    assert world.keeper(kim).strikes == 1  # its absence was no clean stretch


def test_fewer_slots_count_at_once_and_more_are_proven_first(world, kim, lee):
    world.audit(kim, lee)
    world.to(OPEN)
    assert world.lend(kim, 40) == ""
    assert world.keeper(kim).proven == 40
    assert world.lend(kim, 1_000_000) == ""
    assert world.keeper(kim).proven == 40
    world.audit(kim, lee, failed={kim: SILENT})
    assert world.keeper(kim).proven == 40


def test_collateral_finds_a_way_out_when_many_amounts_unbond():
    world = Lending("kim", unbonding=10_000, strike_limit=1_000)
    kim = world.people["kim"]
    held = world.account(kim).held + world.keeper(kim).collateral
    slots = 100
    while slots:
        world.to(OPEN)
        for _ in range(6):
            slots -= 2
            assert world.lend(kim, max(0, slots)) == ""
            if slots <= 0:
                break
        world.block()
        slots = max(0, slots)
    account = world.account(kim)
    assert len(account.unbonding) == 32
    assert account.held == held
    assert sum(one.amount for one in account.unbonding) == 1_000


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_whatever_keepers_and_auditors_do_every_unit_is_accounted_for(seed):
    """`World.block` counts all units after each block."""
    rng = random.Random(seed)
    world = Lending("kim", "lee", "max", max_keepers=3, max_deals=3, strike_limit=2, auditors=3)
    people = list(world.people.values())
    world.keep(*people)
    seen, deals = set(), []
    for _ in range(12 * BLOCKS):
        who = [*rng.sample(people, 3), *rng.sample(world.validators, 3)]
        inside = [world.tx(one, anything(rng, world, one, deals)) for one in who]
        receipts = world.block(*inside)
        deals += [one.id for one in receipts if not one.error]
        for keeper in world.view.keepers():
            seen |= {keeper.verdict, ("suspended", keeper.suspended)}
        seen |= {("shown", duty.shown) for _, duty in world.view.duties()}
    assert {Verdict.PROVEN, Verdict.UNDECIDED, Verdict.FAILED, Verdict.NO_ANSWER} <= seen
    assert {("suspended", True), ("shown", True)} <= seen


def anything(rng, world, who, deals):
    """What an account may think of; in an audit mostly what it is there for."""
    audit = world.view.audit()
    number = audit.number if audit is not None else 1
    if audit is not None and rng.random() < 0.8:
        if audit.phase is AuditPhase.ANSWER and who not in world.validators:
            return CapacityAnswer(number, b"a" * 32)
        if audit.phase is AuditPhase.REPORT and who in world.validators:
            return some_report(rng, world, who.public_key)
    pieces = tuple((root(f"piece {at}"), rng.randrange(1, 2**24)) for at in range(3))
    return rng.choice(
        [
            CapacityCommit(b"r" * 32, rng.choice((0, 50, 500, 500, 2**32))),
            CapacityAnswer(number, b"a" * 32),
            AuditReport(number, (), ()),
            KeepPost(pieces, rng.randrange(1, 4), rng.randrange(2, 9), rng.randrange(1, 50), b""),
            KeepEnd(rng.choice(deals) if deals else b"d" * 32),
            Transfer(rng.choice(list(world.people.values())).public_key, rng.randrange(1000)),
            Withdraw(),
        ]
    )


def some_report(rng, world, auditor):
    """About those that it was drawn for, by a whim that all auditors share in an audit."""
    audit = world.view.audit()
    panel = Panel(audit.seed2, world.view.validators(audit.epoch), 3)
    mood = random.Random(audit.number)
    failed, missing = [], []
    for keeper in world.view.keepers():
        fails, hides, lies = mood.random() < 0.3, mood.random() < 0.3, rng.random() < 0.1
        if auditor in panel.of(keeper.public_key):
            if fails != lies:
                failed.append((keeper.public_key, SILENT))
            missing += [
                (keeper.public_key, duty.deal, duty.piece)
                for duty in world.view.duties_of(keeper.public_key)
                if hides and duty.due <= audit.number
            ]
    return AuditReport(audit.number, tuple(failed), tuple(sorted(missing)))


def test_who_owns_nothing_lends_the_free_slots_and_not_one_more():
    world, poor = Lending(free_slots=4), signer("poor")
    world.keep(poor)
    assert "collateral" in world.lend(poor, 5)
    assert world.lend(poor, 4) == ""
    assert world.view.keeper(poor.public_key).collateral == 0
    bob = world.people["bob"]
    world.keep(bob)
    assert world.lend(bob, 6) == ""
    assert world.view.keeper(bob.public_key).collateral == 2 * world.genesis.params.keeper_bond


def test_an_audit_on_disk_goes_as_in_memory(tmp_path):
    small = {
        "audit_blocks": BLOCKS,
        "audit_answer_blocks": ANSWERS,
        "audit_report_blocks": REPORTS,
        "keeper_bond": 10,
        "free_slots": 0,
        "min_keep_price": 3,
        "keep_fee": 2_500,
    }
    with open_alone(tmp_path, **small) as alone:
        key = VrfKey.of(ALICE.seed).public_key
        assert alone.run(ALICE, Register(key, "disk", ("keeper",))) == ""
        assert alone.run(ALICE, CapacityCommit(b"r" * 32, 5000)) == ""
        held = alone.ledger.view().money()
        assert "at least 3 units" in alone.run(ALICE, KeepPost(((root("a"), 1),), 1, 5, 2, b""))
        assert alone.run(ALICE, KeepPost(((root("a"), 1),), 1, 5, 7, b"")) == ""
        money = alone.ledger.view().money()
        assert money.burned - held.burned == 4
        assert money.treasury > held.treasury
        for number in (1, 2):
            alone.grow(number * BLOCKS - alone.ledger.view().height)
            assert alone.run(ALICE, CapacityAnswer(number, b"a" * 32)) == ""
            assert alone.ledger.view().audit().answers == {ALICE.public_key: b"a" * 32}
            alone.grow(ANSWERS - 1)
            assert alone.run(VALIDATOR, AuditReport(number, (), ())) == ""
            assert alone.ledger.view().audit().reported == {VALIDATOR.public_key}
            alone.grow(REPORTS - 1)
        view = alone.ledger.view()
        assert view.keeper(ALICE.public_key).proven == 5000
        assert view.deals()[0].escrow == 4 * 7
        assert view.keepers_of(root("a")) == [ALICE.public_key]
        check_supply(view.raw)
