from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from swarm.ledger.audits import (
    Panel,
    audited_by,
    auditors_of,
    drawn_leaves,
    drawn_slots,
    held_challenge,
)
from swarm.ledger.draws import seat_draw
from swarm.ledger.holdings import EpochSet, EpochValidator
from tests.ledger.world import signer

VECTORS = Path(__file__).parent.parent / "vectors" / "audits.json"
SEED, DEAL = b"s" * 32, b"d" * 32
KEEPER = signer("keeper").public_key


def members(*weights) -> EpochSet:
    one = [
        EpochValidator(signer(f"validator {at}").public_key, b"v" * 32, weight)
        for at, weight in enumerate(weights)
    ]
    return EpochSet(0, SEED, tuple(sorted(one, key=lambda one: one.public_key)))


def test_what_the_beacon_draws_is_pinned():
    found = {
        "seed": SEED.hex(),
        "keeper": KEEPER.hex(),
        "deal": DEAL.hex(),
        "leaves_of_1_slot": drawn_leaves(SEED, KEEPER, 1, 8),
        "leaves_of_4294967296_slots": drawn_leaves(SEED, KEEPER, 2**32, 8),
        "validators": [
            [one.public_key.hex(), one.weight] for one in members(1, 10**18, 5).validators
        ],
        "auditors": [
            [key.hex(), votes]
            for key, votes in auditors_of(SEED, KEEPER, members(1, 10**18, 5), 7).items()
        ],
        "auditors_of_equals": [
            [key.hex(), votes]
            for key, votes in auditors_of(SEED, KEEPER, members(5, 5, 5, 5), 7).items()
        ],
        "whole_slots": drawn_slots(SEED, KEEPER, signer("auditor").public_key, 10**6, 4),
        "held_challenge": held_challenge(SEED, DEAL, 3, KEEPER).hex(),
        "seat": seat_draw(SEED, DEAL, 1, 2, 3, 10**9),
    }
    assert found == json.loads(VECTORS.read_text())


def test_no_two_keepers_or_audits_are_asked_for_the_same_leaves():
    mine = drawn_leaves(SEED, KEEPER, 1000, 64)
    assert len(mine) == 64
    assert all(0 <= leaf < 256_000 for leaf in mine)
    assert mine == drawn_leaves(SEED, KEEPER, 1000, 65)[:64]
    for seed, keeper in ((b"t" * 32, KEEPER), (SEED, signer("other").public_key)):
        assert len(set(drawn_leaves(seed, keeper, 1000, 64)) & set(mine)) < 4


def test_leaves_are_drawn_evenly_over_all_slots():
    counted = Counter(leaf // 256 for leaf in drawn_leaves(SEED, KEEPER, 8, 4096))
    assert set(counted) == set(range(8))
    assert all(400 < count < 630 for count in counted.values())


def test_auditors_are_drawn_by_weight_and_count_as_often_as_they_are_drawn():
    of = members(1000, 3000, 6000)
    panel = Panel(SEED, of, 3)
    votes: Counter[bytes] = Counter()
    for at in range(2000):
        drawn = panel.of(at.to_bytes(32, "big"))
        assert sum(drawn.values()) == 3
        votes.update(drawn)
    for one in of.validators:
        assert abs(votes[one.public_key] / 6000 - one.weight / 10_000) < 0.03


def test_nobody_audits_itself_unless_it_is_alone():
    of = members(10**9, 1, 1)
    for one in of.validators:
        for at in range(20):
            drawn = auditors_of(at.to_bytes(32, "big"), one.public_key, of, 5)
            assert one.public_key not in drawn
            assert sum(drawn.values()) == 5
    (alone,) = members(7).validators
    assert auditors_of(SEED, alone.public_key, members(7), 3) == {alone.public_key: 3}


def test_what_an_auditor_was_drawn_for_is_what_names_it():
    of = members(5, 6, 7, 8)
    keepers = [at.to_bytes(32, "big") for at in range(50)]
    mine = of.validators[0].public_key
    assert audited_by(mine, SEED, keepers, of, 3) == [
        keeper for keeper in keepers if mine in auditors_of(SEED, keeper, of, 3)
    ]


@pytest.mark.parametrize(("lost", "count"), [(0.01, 64), (0.05, 64), (0.2, 16), (0.5, 3)])
def test_a_keeper_that_lost_a_part_is_caught_as_often_as_the_formula_says(lost, count):
    """`1 - (1 - f)^k`, within four standard deviations of 1,500 audits."""
    rng = random.Random(7)
    slots = 200
    gone = set(rng.sample(range(slots * 256), int(lost * slots * 256)))
    audits = 1500
    caught = sum(
        not gone.isdisjoint(drawn_leaves(at.to_bytes(32, "big"), KEEPER, slots, count))
        for at in range(audits)
    )
    expected = 1 - (1 - lost) ** count
    spread = (expected * (1 - expected) / audits) ** 0.5
    assert abs(caught / audits - expected) < 4 * spread


def test_a_keeper_that_dropped_one_part_in_a_hundred_is_caught_within_a_day():
    """Whole slots, where it hurts an audit least: 24 audits of 64 leaves miss it once in five million."""
    slots = 1000
    dropped = range(990, 1000)
    for trial in range(60):
        keeper = signer(f"dropper {trial}").public_key
        assert any(
            leaf // 256 in dropped
            for hour in range(24)
            for leaf in drawn_leaves(hour.to_bytes(32, "big"), keeper, slots, 64)
        )


@pytest.mark.parametrize(("count", "honest", "liar"), [(3, 0.037, 0.296), (15, 0.0018, 0.404)])
def test_a_third_of_hostile_weight_rarely_strikes_and_does_not_hide_for_long(count, honest, liar):
    """The numbers of `docs/protocols/capacity.md`: how often each of them is struck in one audit."""
    of = members(1000, 1000, 1000)
    hostile = of.validators[0].public_key
    panel = Panel(SEED, of, count)
    audits = 3000
    against = [panel.of(at.to_bytes(32, "big")).get(hostile, 0) for at in range(audits)]
    assert abs(sum(3 * votes > 2 * count for votes in against) / audits - honest) < 0.015
    caught = sum(3 * (count - votes) > 2 * count for votes in against)
    assert abs(caught / audits - liar) < 0.03
