from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from swarm.training.assignment import Generator, own_ids, sample_ids, scoring_ids

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
