from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from swarm.ledger.audits import Panel, audited_by, auditors_of
from swarm.ledger.draws import DRAWS, seat_draw
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
    of = members(*[1000] * 10, *[3000] * 10, *[6000] * 10)
    panel = Panel(SEED, of, 3)
    votes: Counter[bytes] = Counter()
    for at in range(2000):
        drawn = panel.of(at.to_bytes(32, "big"))
        votes.update(drawn)
    for one in of.validators:
        assert abs(votes[one.public_key] / votes.total() - one.weight / 100_000) < 0.01


@pytest.mark.parametrize(
    ("weights", "count", "different"),
    [((5, 5, 5, 5), 3, 3), ((5, 5), 3, 2), ((1, 2, 3, 4, 5, 6), 5, 5), ([7] * 40, 9, 9)],
)
def test_so_many_different_auditors_are_drawn_as_are_wanted_or_as_there_are(
    weights, count, different
):
    panel = Panel(SEED, members(*weights), count)
    for at in range(200):
        drawn = panel.of(at.to_bytes(32, "big"))
        assert len(drawn) >= different
        assert sum(drawn.values()) >= count


def test_one_that_holds_nearly_all_weight_is_not_outvoted_by_small_ones():
    of = members(10**9, 1, 1, 1)
    panel = Panel(SEED, of, 3)
    for at in range(50):
        drawn = panel.of(at.to_bytes(32, "big"))
        assert list(drawn.values()) == [3 * DRAWS]


def test_nobody_audits_itself_unless_it_is_alone():
    of = members(10**9, 1, 1)
    for one in of.validators:
        for at in range(20):
            drawn = auditors_of(at.to_bytes(32, "big"), one.public_key, of, 5)
            assert one.public_key not in drawn
            assert sum(drawn.values()) >= 5
    (alone,) = members(7).validators
    assert auditors_of(SEED, alone.public_key, members(7), 3) == {alone.public_key: 3}


def test_what_an_auditor_was_drawn_for_is_what_names_it():
    of = members(5, 6, 7, 8)
    keepers = [at.to_bytes(32, "big") for at in range(50)]
    mine = of.validators[0].public_key
    assert audited_by(mine, SEED, keepers, of, 3) == [
        keeper for keeper in keepers if mine in auditors_of(SEED, keeper, of, 3)
    ]


@pytest.mark.parametrize(("count", "honest", "liar"), [(3, 0.037, 0.296), (15, 0.003, 0.46)])
def test_a_third_of_hostile_weight_rarely_strikes_and_does_not_hide_for_long(count, honest, liar):
    """The numbers of `docs/protocols/capacity.md`: how often each of them is struck in one audit."""
    of = members(*[1000] * 150)
    hostile = {one.public_key for one in of.validators[:50]}
    panel = Panel(SEED, of, count)
    audits, struck, caught = 3000, 0, 0
    for at in range(audits):
        votes = panel.of(at.to_bytes(32, "big"))
        against = sum(often for key, often in votes.items() if key in hostile)
        struck += 3 * against > 2 * sum(votes.values())
        caught += 3 * (sum(votes.values()) - against) > 2 * sum(votes.values())
    assert abs(struck / audits - honest) < 0.015
    assert abs(caught / audits - liar) < 0.03
