"""Leaving: the order and the time of its parts (pure)."""

from types import SimpleNamespace

from swarm.care.departure import Facts, blocks_left, is_done, is_with_others, stages, steps
from swarm.care.standing import settles_at
from swarm.ledger import schedule
from swarm.ledger.genesis import Params
from swarm.ledger.keeping import Seat, Seats
from swarm.ledger.transactions import CapacityCommit, Register, Unstake, Withdraw

NOTHING = {
    "height": 1000, "owing": 0, "slots": 0, "opens": 1001, "collateral": 0, "stake": 0, "bond": 0, "roles": (),
    "releases": (), "pieces": 0, "alone": 0, "settles": 1500, "audit_blocks": 1440, "unbonding_blocks": 9000,
}  # fmt: skip
VRF = b"v" * 32


def facts(**changed):
    return Facts(**(NOTHING | changed))


def kinds(one):
    return [type(step) for step in steps(one, VRF, "cpu")]


def test_an_account_that_holds_nothing_has_left():
    assert is_done(stages(facts()))
    assert kinds(facts()) == []


def test_space_is_taken_back_only_when_the_ledger_takes_it():
    assert kinds(facts(slots=5, opens=1400)) == []
    assert kinds(facts(slots=5, opens=1001)) == [CapacityCommit]
    assert blocks_left(stages(facts(slots=5, opens=1400, collateral=1))) == 401 + 9000


def test_the_stake_goes_at_once_and_the_bond_when_nothing_is_owed():
    assert kinds(facts(stake=7)) == [Unstake]
    assert kinds(facts(bond=7, owing=1)) == []
    assert kinds(facts(bond=7, slots=1, opens=1400)) == []
    assert kinds(facts(bond=7)) == [Register]


def test_what_has_unbonded_is_withdrawn_and_what_has_not_is_waited_for():
    assert kinds(facts(releases=((5, 1001),))) == []
    assert not is_done(stages(facts(releases=((5, 1001),))))
    assert kinds(facts(releases=((5, 1000), (5, 2000)))) == [Withdraw]


def test_pieces_wait_for_the_settlement_and_an_audit():
    assert blocks_left(stages(facts(pieces=3, alone=1))) == 500 + 1440
    assert is_done(stages(facts(pieces=3, alone=0)))


def test_a_piece_is_with_others_when_all_its_copies_are_shown_by_others():
    own, other, third = b"o" * 32, b"a" * 32, b"b" * 32
    deal = SimpleNamespace(replicas=2)

    def asked(*taken):
        return is_with_others(deal, Seats(b"d", (taken,)), 0, own)

    assert not asked(Seat(own, 1, shown=True), Seat(other, 1, shown=True))
    assert not asked(Seat(third, 1), Seat(other, 1, shown=True))
    assert asked(Seat(third, 1, shown=True), Seat(other, 1, shown=True))
    assert is_with_others(None, None, 0, own)


def test_the_next_settlement_is_the_end_of_the_running_audit_or_of_the_next():
    params = Params()
    first = schedule.reports_until(params, schedule.start(params, 1)) + 1
    assert settles_at(params, 5) == first
    assert settles_at(params, params.audit_blocks + 1) == first
    assert settles_at(params, first) == first + params.audit_blocks
