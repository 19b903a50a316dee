from __future__ import annotations

from collections import Counter

import pytest

from swarm.ledger import deals
from swarm.ledger.audits import Panel
from swarm.ledger.draft import Draft
from swarm.ledger.keeping import Keeper, Verdict
from swarm.ledger.transactions import AuditReport, CapacityCommit, KeepEnd, KeepPost, Transfer
from tests.ledger.lending import ANSWERS, GIB, OPEN, REPORTS, Lending
from tests.ledger.world import root, signer

MIB = 2**20


@pytest.fixture
def world():
    """Two keepers that were proven once, with room for 4 GiB each."""
    made = Lending("kim", "lee", slots=4096)
    made.audit(*made.keepers)
    return made


@pytest.fixture
def alice(world):
    return world.people["alice"]


def seats(world, deal):
    return [[seat.keeper for seat in piece] for piece in world.view.seats(deal).of]


def named(world, key):
    return next(one for one in world.people.values() if one.public_key == key)


def test_a_deal_escrows_all_its_audits_and_returns_what_is_left(world, alice):
    held = world.account(alice).balance
    deal = world.deal(alice, "a", "b", size=GIB + 1, replicas=2, audits=2, price=7)
    assert world.view.deal(deal).escrow == 2 * 2 * 2 * 2 * 7
    assert world.account(alice).balance == held - 112
    earned = [world.account(one).earned for one in world.keepers]
    for _ in range(2):
        world.audit(*world.keepers)
        paid = world.view.audit().paid
        now = [world.account(one).earned for one in world.keepers]
        assert sum(now) - sum(earned) - paid == 56
        earned = now
    assert world.view.deal(deal) is None
    assert world.view.deals() == []
    assert world.account(alice).balance == held - 112


def test_a_deal_is_refused_that_its_owner_cannot_pay(world):
    poor = signer("poor")
    asked = KeepPost(((root("a"), 1),), 1, 1, 1, b"")
    assert "does not cover" in world.run(poor, asked)
    assert world.view.deals() == []


def test_seats_are_drawn_with_the_block_and_shown_from_an_audit_that_leaves_time(world, alice):
    deal = world.deal(alice, "a", replicas=2)
    assert sorted(seats(world, deal)[0]) == sorted(one.public_key for one in world.keepers)
    kim = world.people["kim"]
    (duty,) = world.view.duties_of(kim.public_key)
    assert (duty.deal, duty.piece, duty.root, duty.size) == (deal, 0, root("a"), GIB)
    assert (duty.due, duty.shown) == (2, False)
    world.to(15)
    world.deal(alice, "late")
    late = [duty for key, duty in world.view.duties() if duty.root == root("late")]
    assert [one.due for one in late] == [3]
    assert sorted(world.view.keepers_of(root("a"))) == sorted(seats(world, deal)[0])
    assert world.view.keepers_of(root("nothing")) == []


def test_a_deal_pays_from_its_first_audit_on_and_not_before(world, alice):
    world.to(15)
    deal = world.deal(alice, "a", audits=2)
    escrow = world.view.deal(deal).escrow
    world.audit(*world.keepers)
    assert world.view.deal(deal).escrow == escrow
    world.audit(*world.keepers)
    assert world.view.deal(deal).escrow == escrow // 2
    world.audit(*world.keepers)
    assert world.view.deal(deal) is None


def test_pieces_of_a_deal_go_to_different_keepers_while_there_are_enough():
    names = [f"keeper {at}" for at in range(6)]
    world = Lending(*names, slots=4096)
    world.audit(*world.keepers)
    alice = world.people["alice"]
    deal = world.deal(alice, "a", "b", "c", replicas=2, size=MIB)
    assert len({key for piece in seats(world, deal) for key in piece}) == 6
    more = world.deal(alice, *"abcdefg", replicas=2, size=MIB)
    assert [len(set(piece)) for piece in seats(world, more)] == [2] * 7


def coded(world, who, pieces, replicas=1, size=MIB):
    parts = tuple((root(f"piece {at}"), size) for at in range(pieces))
    return world.ok((who, KeepPost(parts, replicas, 5, 7, root("recipe"))))[0].id


def taken(world, deal):
    return [key for piece in seats(world, deal) for key in piece]


def test_no_keeper_has_two_pieces_of_one_recipe_and_seats_stay_open_where_keepers_are_few(alice):
    world = Lending(*[f"keeper {at}" for at in range(5)], slots=4096)
    world.audit(*world.keepers)
    for pieces, replicas in ((8, 1), (4, 2)):
        deal = coded(world, alice, pieces, replicas)
        for _ in range(2):
            keepers = taken(world, deal)
            assert len(keepers) == len(set(keepers)) == 5
            world.audit(*world.keepers)
        assert len(taken(world, deal)) == 5


def test_a_recipe_of_as_many_pieces_as_there_are_keepers_finds_every_one_at_once(alice):
    """Also one that nearly no draw falls upon."""
    world = Lending(*[f"keeper {at}" for at in range(14)], slots=4096)
    small = world.keepers[3]
    assert world.lend(small, 2, "small") == ""
    world.audit(*world.keepers)
    deal = coded(world, alice, 14)
    assert sorted(taken(world, deal)) == sorted(one.public_key for one in world.keepers)


def test_a_vacant_seat_of_a_recipe_goes_to_nobody_that_holds_another_piece():
    world = Lending("kim", "lee", "max", slots=4096)
    alice = world.people["alice"]
    world.audit(*world.keepers)
    deal = coded(world, alice, 2)
    away, stays = (named(world, key) for key in taken(world, deal))
    (spare,) = set(world.keepers) - {away, stays}
    world.to(OPEN)
    assert world.lend(away, 0) == ""
    assert world.lend(spare, 0) == ""
    world.audit(stays)
    assert taken(world, deal) == [stays.public_key]


def test_one_block_looks_at_a_bounded_number_of_keepers(monkeypatch, alice):
    world = Lending(*[f"keeper {at}" for at in range(6)], slots=4096)
    world.audit(*world.keepers)
    monkeypatch.setattr(deals, "TRIES", 0)
    monkeypatch.setattr(deals, "MAX_STEPS", 3)
    deal = coded(world, alice, 6)
    assert 0 < len(taken(world, deal)) <= 3


def test_a_deal_that_pays_less_than_the_network_asks_is_refused():
    world = Lending("kim", min_keep_price=7)
    alice = world.people["alice"]
    cheap = KeepPost(((root("a"), 1),), 1, 3, 6, b"")
    assert "at least 7 units" in world.run(alice, cheap)
    assert world.view.deals() == []
    assert world.deal(alice, "a", price=7)


def test_a_deals_fee_is_burned_in_part_and_does_not_come_back():
    world = Lending("kim", slots=4096, keep_fee=1_000, keep_burn=2_500, emission_per_day=0)
    alice, kim = world.people["alice"], world.people["kim"]
    world.audit(kim)
    held, money = world.account(alice).balance, world.view.money()
    deal = world.deal(alice, "a", audits=3, price=10_000)
    assert world.account(alice).balance == held - 33_000
    after = world.view.money()
    assert (after.burned - money.burned, after.treasury - money.treasury) == (750, 2_250)
    assert after.supply == money.supply - 750
    assert world.run(alice, KeepEnd(deal)) == ""
    world.audit(kim)
    assert world.account(alice).balance == held - 3_000 - 10_000
    poor = signer("poor")
    world.ok((alice, Transfer(poor.public_key, 30_000)))
    asked = KeepPost(((root("b"), 1),), 1, 3, 10_000, b"")
    assert "33,000" in world.run(poor, asked)


def test_a_keeper_gets_no_more_than_its_proven_slots_hold(world, alice):
    deal = world.deal(alice, "a", "b", "c", size=3 * GIB, replicas=2)
    held = Counter(key for piece in seats(world, deal) for key in piece)
    assert held == {one.public_key: 1 for one in world.keepers}
    assert seats(world, world.deal(alice, "big", size=2 * GIB)) == [[]]
    assert len(seats(world, world.deal(alice, "small", size=GIB))[0]) == 1
    assert Counter(key for piece in seats(world, deal) for key in piece) == held


def test_seats_that_found_nobody_are_filled_when_somebody_is_proven(alice):
    world = Lending("kim", slots=4096)
    deal = world.deal(alice, "a")
    assert seats(world, deal) == [[]]
    kim = world.people["kim"]
    world.audit(kim)
    assert seats(world, deal) == [[kim.public_key]]


def test_who_does_not_show_a_piece_it_never_showed_loses_the_seat_alone(world, alice):
    deal = world.deal(alice, "a")
    (first,) = seats(world, deal)[0]
    keeper = named(world, first)
    escrow = world.view.deal(deal).escrow
    world.audit(*world.keepers, missing=[(keeper, deal, 0)])
    assert world.keeper(keeper).verdict is Verdict.PROVEN
    assert world.keeper(keeper).strikes == 0
    assert world.view.deal(deal).escrow == escrow
    assert all(not duty.shown for _, duty in world.view.duties())


def test_who_loses_a_piece_that_it_had_shown_gets_a_strike_and_no_pay(world, alice):
    deal = world.deal(alice, "a", replicas=2)
    keeper = named(world, seats(world, deal)[0][0])
    world.audit(*world.keepers)
    assert all(duty.shown for _, duty in world.view.duties())
    earned, escrow = world.account(keeper).earned, world.view.deal(deal).escrow
    world.audit(*world.keepers, missing=[(keeper, deal, 0)])
    assert world.keeper(keeper).verdict is Verdict.LOST_PIECE
    assert world.keeper(keeper).strikes == 1
    assert world.account(keeper).earned == earned
    assert world.view.deal(deal).escrow == escrow - 7  # the other one showed it


def test_a_piece_about_which_auditors_disagree_is_not_paid_and_keeps_its_keeper():
    world = Lending("kim", slots=4096, auditors=9)
    kim, alice = world.people["kim"], world.people["alice"]
    world.audit(kim)
    deal = world.deal(alice, "a")
    escrow = world.view.deal(deal).escrow
    world.answers(kim)
    audit = world.view.audit()
    panel = Panel(audit.seed2, world.view.validators(audit.epoch), 9)
    votes = panel.of(kim.public_key)
    against, liars = 0, []
    for one in sorted(world.validators, key=lambda one: votes.get(one.public_key, 0)):
        if one.public_key in votes and against < 5:
            against += votes[one.public_key]
            liars.append(one)
    assert 5 <= against <= 6
    gone = ((kim.public_key, deal, 0),)
    world.ok(
        *[
            (one, AuditReport(audit.number, (), gone if one in liars else ()))
            for one in world.validators
        ]
    )
    world.to(ANSWERS + REPORTS)
    assert world.keeper(kim).verdict is Verdict.PROVEN
    assert world.view.deal(deal).escrow == escrow
    assert seats(world, deal) == [[kim.public_key]]


def test_a_keeper_that_is_struck_is_not_paid_for_its_pieces(world, alice):
    deal = world.deal(alice, "a", replicas=2)
    escrow = world.view.deal(deal).escrow
    world.audit(world.people["kim"])
    assert world.view.deal(deal).escrow == escrow - 7
    assert len(seats(world, deal)[0]) == 2


def test_a_suspended_keeper_and_one_that_left_are_replaced(alice):
    world = Lending("kim", "lee", "max", slots=4096)
    world.audit(*world.keepers)
    deal = world.deal(alice, "a", replicas=2, audits=20)
    away, other = (named(world, key) for key in seats(world, deal)[0])
    rest = [one for one in world.keepers if one is not away]
    for _ in range(3):
        assert away.public_key in seats(world, deal)[0]
        world.audit(*rest)
    assert world.keeper(away).suspended
    assert sorted(seats(world, deal)[0]) == sorted(one.public_key for one in rest)
    world.to(OPEN)
    assert world.lend(other, 0) == ""
    rest.remove(other)
    world.audit(*rest)
    assert seats(world, deal) == [[rest[0].public_key]]


def test_a_deal_stopped_by_its_owner_ends_with_the_next_settlement(world, alice):
    held = world.account(alice).balance
    deal = world.deal(alice, "a", audits=50)
    bob = world.people["bob"]
    assert "another account's" in world.run(bob, KeepEnd(deal))
    assert world.run(alice, KeepEnd(deal)) == ""
    assert "next settlement" in world.run(alice, KeepEnd(deal))
    assert "no such deal" in world.run(alice, KeepEnd(b"x" * 32))
    world.audit(*world.keepers)
    assert world.view.deal(deal) is None
    assert world.view.seats(deal) is None
    assert world.account(alice).balance == held - 7


def test_where_all_places_are_taken_the_deal_that_pays_least_gives_way():
    world = Lending("kim", slots=4096, max_deals=2)
    alice, bob = world.people["alice"], world.people["bob"]
    world.audit(world.people["kim"])
    held = world.account(alice).balance
    cheap, dear = world.deal(alice, "a", price=5), world.deal(alice, "b", price=9)
    asked = KeepPost(((root("c"), GIB),), 1, 3, 5, b"")
    assert "none pays less" in world.run(bob, asked)
    better = KeepPost(((root("c"), GIB),), 1, 3, 6, b"")
    world.to(0)
    assert "none gives way" in world.run(bob, better)
    world.to(OPEN)
    third = world.ok((bob, better))[0].id
    assert [one.id for one in world.view.deals()] == [dear, third]
    assert world.view.deal(cheap) is None
    spent = world.view.deal(dear).escrow + 9 * (world.view.deal(dear).first < 2)
    assert world.account(alice).balance == held - spent


def test_who_displaces_its_own_deal_is_charged_once():
    world = Lending("kim", max_deals=1)
    alice = world.people["alice"]
    held = world.account(alice).balance
    world.deal(alice, "a", price=5)
    world.deal(alice, "b", price=6)
    assert world.account(alice).balance == held - 18


def test_the_same_deal_ends_when_its_keepers_are_gone_and_all_escrow_returns(world, alice):
    held = world.account(alice).balance
    deal = world.deal(alice, "a", audits=2)
    world.ok(*[(one, CapacityCommit(bytes(32), 0)) for one in world.keepers])
    world.audit()
    world.audit()
    assert world.view.deal(deal) is None
    assert world.account(alice).balance == held


def test_seats_fall_by_proven_slots_and_splitting_gains_nothing():
    """One of 3,000 slots gets as much as three of 1,000."""
    world = Lending()
    draft = Draft(world.memory)
    whole, parts = signer("whole").public_key, [signer(f"part {at}").public_key for at in range(3)]
    for key, slots in ((whole, 3_000_000), *((part, 1_000_000) for part in parts)):
        draft.put_keeper(Keeper(key, b"r" * 32, slots, 0, 1, proven=slots))
    owner = world.people["alice"].public_key
    for at in range(60):
        pieces = tuple((root(f"{at} {piece}"), MIB) for piece in range(32))
        deals.post(draft, at.to_bytes(32, "big"), owner, KeepPost(pieces, 1, 5, 1, b""), 1)
    deals.fill(draft, 1, b"b" * 32)
    held = Counter(
        seat.keeper for deal in draft.open_deals for taken in draft.seats(deal).of for seat in taken
    )
    assert sum(held.values()) == 60 * 32
    assert abs(held[whole] - 960) < 160  # passing over a keeper of the deal pulls towards the small
    assert min(held[part] for part in parts) > 250


def test_one_block_draws_a_bounded_number_of_seats(monkeypatch):
    world = Lending("kim", "lee", slots=4096)
    world.audit(*world.keepers)
    monkeypatch.setattr(deals, "MAX_DRAWS", 3)
    alice = world.people["alice"]
    deal = world.deal(alice, *[f"{at}" for at in range(8)], size=MIB)
    first = sum(map(len, seats(world, deal)))
    assert 0 < first <= 3
    world.audit(*world.keepers)
    assert sum(map(len, seats(world, deal))) > first


def test_an_answer_changes_no_big_record(world):
    before = dict(world.memory.values)
    world.to(0)
    world.answers(*world.keepers)
    changed = {key for key, value in world.memory.values.items() if before.get(key) != value}
    assert max(len(world.memory.values[key]) for key in changed if key[:2] in (b"q/", b"k/")) < 80
    assert not any(key.startswith((b"k/", b"c/", b"g/")) for key in changed)


def test_a_transfer_between_settlements_touches_no_deal(world, alice):
    world.deal(alice, "a")
    before = dict(world.memory.values)
    world.ok((alice, Transfer(b"b" * 32, 1)))
    changed = {key[:2] for key, value in world.memory.values.items() if before.get(key) != value}
    assert changed == {b"a/", b"m/"}
