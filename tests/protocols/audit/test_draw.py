from __future__ import annotations

import hashlib
import random
from collections import Counter

import pytest

from protocols.audit.draw import AUDIT_SLOTS, draw_leaves, draw_slots, held_seed, leaf_index
from storage.slots import LeafProof

SEED, KEEPER = b"s" * 32, b"k" * 32


def leaf_at(slot, number):
    data = hashlib.sha256(bytes((slot % 256, number))).digest() * 128
    return LeafProof(slot, number, data, b"", [], [])


def test_an_index_is_what_the_text_says():
    data = b"swarm/audit-leaf/1\0" + SEED + KEEPER + b"\0\0\0\5" + b"x" * 4096
    expected = int.from_bytes(hashlib.sha256(data).digest(), "big") % (1000 * 256)
    assert leaf_index(SEED, KEEPER, 5, b"x" * 4096, 1000) == expected


def test_each_leaf_tells_where_the_next_one_is():
    drawn = draw_leaves(SEED, KEEPER, 1000, 64, leaf_at)
    assert len({(one.slot, one.number) for one in drawn}) == 64
    lost = draw_leaves(
        SEED,
        KEEPER,
        1000,
        64,
        lambda slot, number: (
            leaf_at(slot, number)
            if (slot, number) != (drawn[20].slot, drawn[20].number)
            else LeafProof(slot, number, bytes(4096), b"", [], [])
        ),
    )
    assert drawn[:20] == lost[:20]
    assert not {(one.slot, one.number) for one in drawn[21:]} & {
        (one.slot, one.number) for one in lost[21:]
    }


def test_leaves_are_drawn_evenly_and_differ_by_seed_and_keeper():
    drawn = [
        (one.slot, one.number)
        for seed in (SEED, b"t" * 32)
        for keeper in (KEEPER, b"l" * 32)
        for one in draw_leaves(seed, keeper, 4, 500, leaf_at)
    ]
    slots = Counter(slot for slot, _ in drawn)
    assert min(slots.values()) > 400
    assert len(set(drawn)) > 800


def test_without_slots_nothing_is_drawn():
    assert draw_leaves(SEED, KEEPER, 0, 64, leaf_at) == []
    assert draw_slots(SEED, KEEPER, 0) == []


@pytest.mark.parametrize("count", [1, 3, 100])
def test_whole_slots_are_few_and_drawn_evenly(count):
    seen = set()
    for number in range(100):
        drawn = draw_slots(number.to_bytes(32, "big"), KEEPER, count)
        assert 1 <= len(drawn) == len(set(drawn)) <= AUDIT_SLOTS
        seen.update(drawn)
    assert seen <= set(range(count))
    assert len(seen) > 0.8 * count


def test_each_duty_has_its_own_challenge():
    seeds = {
        held_seed(SEED, KEEPER, b"d" * 32, 0),
        held_seed(b"t" * 32, KEEPER, b"d" * 32, 0),
        held_seed(SEED, b"l" * 32, b"d" * 32, 0),
        held_seed(SEED, KEEPER, b"e" * 32, 0),
        held_seed(SEED, KEEPER, b"d" * 32, 1),
    }
    assert len(seeds) == 5


def test_slots_and_challenges_are_what_the_text_says():
    numbers = [
        hashlib.sha256(b"swarm/audit-slot/1\0" + SEED + KEEPER + bytes((0, 0, 0, at))).digest()
        for at in range(AUDIT_SLOTS)
    ]
    assert draw_slots(SEED, KEEPER, 10**6) == [
        int.from_bytes(one, "big") % 10**6 for one in numbers
    ]
    challenge = b"swarm/audit-held/1\0" + SEED + b"d" * 32 + b"\0\0\0\3" + KEEPER
    assert held_seed(SEED, KEEPER, b"d" * 32, 3) == hashlib.sha256(challenge).digest()


def drawn_leaves(
    audit: int, slots: int, count: int, keeper: bytes = KEEPER
) -> set[tuple[int, int]]:
    seed = audit.to_bytes(32, "big")
    return {(one.slot, one.number) for one in draw_leaves(seed, keeper, slots, count, leaf_at)}


@pytest.mark.parametrize(("lost", "count"), [(0.01, 64), (0.05, 64), (0.2, 16), (0.5, 3)])
def test_a_keeper_that_lost_a_part_is_caught_as_often_as_the_formula_says(lost, count):
    """`1 - (1 - f)^k`, within four standard deviations of 500 audits."""
    rng = random.Random(7)
    slots, audits = 200, 500
    gone = {divmod(at, 256) for at in rng.sample(range(slots * 256), int(lost * slots * 256))}
    caught = sum(bool(gone & drawn_leaves(audit, slots, count)) for audit in range(audits))
    expected = 1 - (1 - lost) ** count
    spread = (expected * (1 - expected) / audits) ** 0.5
    assert abs(caught / audits - expected) < 4 * spread


def test_a_keeper_that_dropped_one_part_in_a_hundred_is_caught_within_a_day():
    """Whole slots, where it hurts an audit least: 24 audits of 64 leaves miss it once in five million."""
    for trial in range(20):
        keeper = hashlib.sha256(bytes([trial])).digest()
        assert any(
            slot >= 990 for hour in range(24) for slot, _ in drawn_leaves(hour, 1000, 64, keeper)
        )
