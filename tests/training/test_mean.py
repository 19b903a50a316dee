"""The mean of pairs: integers, so the same on every machine; nobody pulls it further than the others do."""

from __future__ import annotations

import hashlib
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.training import mean
from swarm.training.errors import CheckpointError
from swarm.training.merge import MAX_UPDATES, MAX_WEIGHT, SCALE_BITS

GENERATOR, DISCRIMINATOR = "generator.first.weight", "discriminator.last.weight"
GREATEST = 2 ** (SCALE_BITS + 21)
"""The distance of the two weights that lie furthest apart."""


def pair(seed: int, scale: float = 1.0) -> dict[str, np.ndarray]:
    chance = np.random.default_rng(seed)
    shapes = {GENERATOR: (6, 5), "generator.first.bias": (5,), DISCRIMINATOR: (7, 3)}
    return {
        name: (scale * chance.integers(-(2**20), 2**20, shape) / 2**20).astype(np.float32)
        for name, shape in shapes.items()
    }


def beside(base: dict, *steps: dict) -> list[dict]:
    return [{name: item + step[name] for name, item in base.items()} for step in steps]


def length(step: dict, network: str) -> float:
    parts = [item for name, item in step.items() if name.startswith(network)]
    return float(np.sqrt(sum(np.square(part.astype(np.float64)).sum() for part in parts)))


def evened(step: dict) -> dict[str, np.ndarray]:
    """A step of length one in either network."""
    return {
        name: (item / length(step, name.partition(".")[0])).astype(np.float32)
        for name, item in step.items()
    }


def test_of_pairs_equally_far_from_the_base_each_weight_becomes_the_mean() -> None:
    base = pair(1)
    pairs = beside(base, *(evened(pair(seed)) for seed in (2, 3, 4)))
    merged = mean.mean(base, pairs)
    for name, item in merged.items():
        exact = np.mean([one[name].astype(np.float64) for one in pairs], 0)
        assert item.dtype == np.float32
        np.testing.assert_allclose(item, exact, rtol=0, atol=3e-5)


def test_order_changes_no_bit_and_the_bits_are_those_of_every_machine() -> None:
    base = pair(1)
    pairs = beside(base, pair(2, 0.1), pair(3, 0.2), pair(4, 5.0), pair(5, 0.01))
    merged, again = mean.mean(base, pairs), mean.mean(base, pairs[::-1])
    joined = b"".join(merged[name].tobytes() for name in sorted(merged))
    assert joined == b"".join(again[name].tobytes() for name in sorted(again))
    assert hashlib.sha256(joined).hexdigest() == (
        "16be323fee6aa85516e5d5ef45177f381295ef4214947f0056e4c1ac0bfd94ad"
    )


def test_a_pair_that_lies_far_off_moves_the_mean_no_further_than_the_middle_one() -> None:
    base = pair(1)
    steps = [evened(pair(seed)) for seed in (2, 3, 4)]
    far = {name: 1000 * item for name, item in steps[2].items()}
    merged = mean.mean(base, beside(base, steps[0], steps[1], far))
    same = mean.mean(base, beside(base, *steps))
    for name, item in merged.items():
        np.testing.assert_allclose(item, same[name], rtol=0, atol=1e-4)


def test_a_discriminator_that_lies_far_off_takes_nothing_from_its_generator() -> None:
    base = pair(1)
    steps = [evened(pair(seed)) for seed in (2, 3, 4)]
    wrecked = {**steps[2], DISCRIMINATOR: 1000 * steps[2][DISCRIMINATOR]}
    honest = mean.mean(base, beside(base, *steps))
    merged = mean.mean(base, beside(base, steps[0], steps[1], wrecked))
    assert merged[GENERATOR].tobytes() == honest[GENERATOR].tobytes()


def test_one_pair_alone_is_taken_as_it_is_and_of_none_the_base_stays() -> None:
    base, other = pair(1), pair(2)
    for merged, wanted in ((mean.mean(base, [other]), other), (mean.mean(base, []), base)):
        assert all(item.tobytes() == wanted[name].tobytes() for name, item in merged.items())


def test_each_distance_is_divided_and_rounded_down_before_they_are_added_up() -> None:
    unit = np.float32(2.0**-SCALE_BITS)
    base = {GENERATOR: np.zeros(4, np.float32)}
    pairs = [{GENERATOR: np.array([1, 5 * unit, -5 * unit, unit], np.float32)}] * 3
    assert mean.mean(base, pairs)[GENERATOR].tolist() == [1, 3 * unit, -6 * unit, 0]


def test_weights_that_no_pair_moves_keep_their_bits() -> None:
    base = pair(1)
    base[GENERATOR][0, 0] = np.float32(-0.0)
    base[GENERATOR][0, 1] = np.float32(1e-30)
    others = [{**base, DISCRIMINATOR: item[DISCRIMINATOR]} for item in (pair(2), pair(3))]
    merged = mean.mean(base, others)
    assert merged[GENERATOR].tobytes() == base[GENERATOR].tobytes()
    assert merged[DISCRIMINATOR].tobytes() != base[DISCRIMINATOR].tobytes()


def test_pairs_at_the_ends_of_what_may_be_said_stay_within_it() -> None:
    base = {GENERATOR: np.full(4, -MAX_WEIGHT, np.float32)}
    pairs = [{GENERATOR: np.full(4, MAX_WEIGHT, np.float32)}] * 3
    assert (mean.mean(base, pairs)[GENERATOR] == MAX_WEIGHT).all()


def test_too_many_pairs_and_a_base_that_is_not_finite_are_refused() -> None:
    base = pair(1)
    with pytest.raises(CheckpointError, match="at most"):
        mean.mean(base, [base] * (MAX_UPDATES + 1))
    for wrong in (np.nan, np.inf, 2 * MAX_WEIGHT):
        broken = {**base, GENERATOR: np.full((6, 5), wrong, np.float32)}
        with pytest.raises(CheckpointError, match="not finite"):
            mean.mean(broken, [base])


@given(
    distances=st.lists(st.integers(-GREATEST, GREATEST), min_size=1, max_size=9),
    share=st.integers(0, 2**mean.SHARE_BITS),
)
def test_squares_and_shares_are_exact_up_to_the_greatest_distance(
    distances: list[int], share: int
) -> None:
    given_ = np.array(distances, np.int64)
    assert mean.squared(given_) == sum((one >> 20) ** 2 for one in distances)
    clipped = mean._clipped(given_, share)
    assert clipped.tolist() == [one * share >> mean.SHARE_BITS for one in distances]


def test_squares_are_exact_where_there_are_more_than_fit_into_one_sum() -> None:
    count = mean._PART + 3
    found = mean.squared(np.full(count, GREATEST, np.int64))
    assert found == count * (GREATEST >> 20) ** 2


def test_more_pairs_take_no_more_memory_than_two() -> None:
    base = {GENERATOR: np.zeros(2**16, np.float32)}
    peaks = []
    for count in (2, 12):
        pairs = [{GENERATOR: np.full(2**16, at + 1, np.float32)} for at in range(count)]
        tracemalloc.start()
        mean.mean(base, pairs)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
