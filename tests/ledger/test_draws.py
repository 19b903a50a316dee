from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from swarm.ledger.audits import Panel, audited_by, auditors_of
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
        "seat": seat_draw(SEED, DEAL, 1, 2, 3, 10**9),
    }
    assert found == json.loads(VECTORS.read_text())


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
