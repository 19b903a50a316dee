from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from swarm.training.assignment import (
    EPOCH_ROUNDS,
    LEAST_DRAWS,
    Generator,
    by_step,
    own_ids,
    retired,
    sample_ids,
    samples_of,
    scoring_ids,
    units,
)

TASK, BEACON = b"T" * 32, b"B" * 32


def ids(peer: str = "peer1", round_: int = 3, beacon: bytes = BEACON) -> list[int]:
    return sample_ids(TASK, "bafyd", round_, peer, beacon, count=300, total=10**9)


def test_the_draw_is_pinned() -> None:
    assert ids()[:4] == [112020800, 165706876, 335567860, 383981636]
    assert hashlib.sha256(repr(ids()).encode()).hexdigest()[:16] == "bc32736c564d4478"


def test_peers_rounds_and_beacons_draw_differently() -> None:
    draws = [ids(), ids(peer="peer2"), ids(round_=4), ids(beacon=b"C" * 32)]
    assert len({tuple(draw) for draw in draws}) == 4


@given(st.integers(1, 300), st.integers(1, 100))
def test_samples_are_distinct_until_all_were_drawn(count: int, total: int) -> None:
    drawn = Generator("t", count).distinct(count, total)
    assert len(drawn) == count
    for lap in range(0, count, total):
        part = drawn[lap : lap + total]
        assert len(set(part)) == len(part)
        assert all(0 <= item < total for item in part)


def test_scoring_takes_half_from_the_pool_and_half_from_the_dataset() -> None:
    pool, data = scoring_ids(TASK, 1, BEACON, sequences=33, pool_total=100, data_total=10**6)
    assert (len(set(pool)), len(set(data))) == (17, 16)
    assert max(pool) < 100


def test_the_samples_looked_for_are_some_that_the_peer_had_and_no_one_could_know_which() -> None:
    def own(score_beacon: bytes, count: int = 64) -> list[int]:
        beacons = (BEACON, score_beacon)
        sizes = {"drawn": 300, "count": count, "total": 10**9}
        return own_ids(TASK, "bafyd", 3, "peer1", beacons, **sizes)

    first, second = own(b"C" * 32), own(b"D" * 32)
    assert len(set(first)) == len(set(second)) == 64
    assert set(first) | set(second) <= set(ids())
    assert first != second
    assert set(own(b"C" * 32, 1000)) == set(ids())
    assert own(b"C" * 32, 63) == []


def test_what_a_score_drew_of_the_pool_in_one_epoch_is_never_drawn_in_another() -> None:
    drawn: dict[int, set[int]] = {}
    for round_ in range(1, 33):
        pool, _ = scoring_ids(
            TASK, round_, BEACON, sequences=32, pool_total=1003, data_total=9, rounds=32
        )
        _, part = retired(32, round_, drawn=16, pool_total=1003)
        drawn.setdefault(part, set()).update(pool)
        assert len(set(pool)) == 16
        assert max(pool) < 1003
    assert len(drawn) == 32 // EPOCH_ROUNDS
    assert sum(len(one) for one in drawn.values()) == len(set().union(*drawn.values()))


def test_a_small_pool_is_one_part_and_every_part_has_room_for_the_draw() -> None:
    assert retired(32, 32, drawn=16, pool_total=63) == (1, 0)
    for total in (64, 127, 128, 1000):
        parts, last = retired(32, 32, drawn=16, pool_total=total)
        assert last == parts - 1
        assert -(-(total - last) // parts) >= LEAST_DRAWS * 16 - 1


@given(st.integers(1, 9), st.integers(1, 5), st.integers(1, 8))
def test_units_share_out_a_longer_draw_whose_beginning_everybody_has(
    steps: int, batch: int, count: int
) -> None:
    order = by_step(steps, batch, count)
    assert sorted(order) == list(range(samples_of(steps, batch, count)))
    for step in range(steps):
        taken = order[step * batch * count : (step + 1) * batch * count]
        assert taken[:batch] == list(range(step * batch, (step + 1) * batch))
        assert {at // (steps * batch) for at in taken} == set(range(count))


def test_a_peer_takes_as_many_units_as_fit_into_half_of_the_phase() -> None:
    assert units(None, 100.0, 8) == 1
    assert [units(seconds, 100.0, 8) for seconds in (200, 50, 25, 10, 0.1)] == [1, 1, 2, 5, 8]
    assert units(1.0, 100.0, 3) == 3
