from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.training import codec, merge, tensors
from swarm.training.errors import CheckpointError

SHAPES = {"a": (70, 70), "b": (9, 9), "n": (50,)}
LAYOUT = codec.Layout(SHAPES, 110)


def base(seed: int = 0) -> dict[str, np.ndarray]:
    # Philox words, so that the pinned bytes do not depend on numpy's distributions.
    words = np.random.Philox(key=seed).random_raw(sum(math.prod(s) for s in SHAPES.values()))
    flat = ((words >> np.uint64(40)).astype(np.float64) * 2.0**-24 - 0.5).astype(np.float32)
    parts = np.split(flat, np.cumsum([math.prod(s) for s in SHAPES.values()])[:-1])
    return {name: part.reshape(SHAPES[name]) for name, part in zip(SHAPES, parts, strict=True)}


def update(seed: int, scale: float = 0.01) -> list[codec.Sparse]:
    values = {name: item * np.float32(scale) for name, item in base(seed).items()}
    return codec.compress(codec.gather(values, LAYOUT), LAYOUT)


def digest(values: dict[str, np.ndarray]) -> str:
    return hashlib.sha256(tensors.encode(values, {})).hexdigest()


def test_the_bytes_of_a_merge_are_pinned() -> None:
    merged = merge.merge(base(), [update(1), update(2, 0.03), update(3, 0.001)], LAYOUT, 2500)
    assert digest(merged) == "a78ddf8e7e5fa679bf4b81d2dd9b42a43a5fc202597a178b5e9d7b74318ba056"


def test_a_merge_of_updates_of_one_part_moves_no_weight_of_another() -> None:
    layout = codec.Layout(SHAPES, 310, 4, 3)
    updates = [codec.compress(codec.gather(base(seed), layout), layout) for seed in (1, 2, 3)]
    merged = codec.gather(merge.merge(base(), updates, layout, 2500), layout)
    for at, old in enumerate(codec.gather(base(), layout)):
        named = np.unique(np.concatenate([update[at].positions for update in updates]))
        assert (np.flatnonzero(merged[at] != old) == named * 4 + 3).all()


def test_every_order_of_arrival_gives_the_same_bytes() -> None:
    updates = [update(seed, 0.01 * seed) for seed in range(1, 5)]
    found = {
        digest(merge.merge(base(), list(order), LAYOUT, 4000))
        for order in itertools.permutations(updates)
    }
    assert len(found) == 1


@settings(deadline=None)  # exact fractions are slow on a machine under load
@given(st.integers(1, 6), st.integers(1, 9000), st.integers(0, 1000))
def test_the_merge_is_the_formula_in_exact_fractions(count: int, amplify: int, seed: int) -> None:
    updates = [update(seed * 10 + at, 0.01 * (at + 1)) for at in range(count)]
    merged = codec.gather(merge.merge(base(), updates, LAYOUT, amplify), LAYOUT)
    asked = merge.steps(updates)
    for at, old in enumerate(codec.gather(base(), LAYOUT)):
        total = [Fraction(0)] * len(old)
        named = [0] * len(old)
        for item, steps in zip(updates, asked, strict=True):
            for position, negative in zip(item[at].positions, item[at].negative, strict=True):
                total[position] += -steps[at] if negative else steps[at]
                named[position] += 1
        for position, value in enumerate(total):
            if value == 0:
                assert merged[at][position] == old[position]
                continue
            share = min(Fraction(amplify, 1000 * count), Fraction(1, named[position]))
            move = math.floor(abs(value) * share) * (1 if value > 0 else -1)
            wanted = Fraction(round(Fraction(float(old[position])) * 2**40) - move, 2**40)
            assert merged[at][position] == np.float32(float(wanted))


def test_a_giant_is_clipped_to_the_median_norm() -> None:
    calm = [update(1), update(2)]
    norms = [merge.norm(item) for item in [*calm, update(3, 10.0)]]
    asked = merge.steps([*calm, update(3, 10.0)])
    giant = math.isqrt(
        sum(len(s.positions) * move**2 for s, move in zip(update(3), asked[2], strict=True))
    )
    assert giant <= merge.median_norm(norms) < norms[2] // 100


def test_the_median_of_an_even_number_is_the_mean_of_the_middle_two() -> None:
    assert merge.median_norm([10, 1, 4, 100]) == 7
    assert merge.median_norm([10, 1, 4]) == 4


def test_a_merge_of_nothing_keeps_every_bit() -> None:
    assert digest(merge.merge(base(), [], LAYOUT, 4000)) == digest(base())


def test_the_greatest_levels_of_the_most_updates_do_not_overflow() -> None:
    heavy = [codec.Sparse(item.positions, item.negative, codec.MAX_LEVEL) for item in update(1)]
    merged = codec.gather(merge.merge(base(), [heavy] * merge.MAX_UPDATES, LAYOUT, 100_000), LAYOUT)
    for flat, old, item in zip(merged, codec.gather(base(), LAYOUT), heavy, strict=True):
        move = old[item.positions] - flat[item.positions]
        np.testing.assert_allclose(move, np.where(item.negative, -1024, 1024), rtol=1e-6)


def test_no_weight_leaves_its_bounds_and_one_that_does_not_move_keeps_its_bits() -> None:
    layout = codec.Layout({"a": (4, 4)}, 4096)
    everything = codec.Sparse(np.arange(16), np.ones(16, bool), 1024.0)
    top = {"a": np.full((4, 4), merge.MAX_WEIGHT, np.float32)}
    assert (merge.merge(top, [[everything]], layout, 4000)["a"] == merge.MAX_WEIGHT).all()
    # Of the least level a half is no move, and the weight is not rounded to 2^-40 either.
    fine = {"a": np.full((4, 4), 1e-7, np.float32)}
    least = dataclasses.replace(everything, level=2.0**-40)
    assert merge.merge(fine, [[least]], layout, 500)["a"].tobytes() == fine["a"].tobytes()


def test_a_base_that_is_not_finite_is_refused() -> None:
    values = base()
    values["n"][0] = np.inf
    with pytest.raises(CheckpointError):
        merge.merge(values, [update(1)], LAYOUT, 4000)
