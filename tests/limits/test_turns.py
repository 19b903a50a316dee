"""The line before one rate: nobody is passed over, and nobody who went away is waited for."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.limits.rate import Bucket
from swarm.limits.turns import MAX_WAIT_SECONDS, Turns


def line(*woken):
    bucket = Bucket(10_000)
    bucket.take(0.0, 2**16 + 10_000)  # a second of debt
    turns = Turns(bucket)
    return bucket, turns, [turns.place(one) for one in woken]


def test_without_a_limit_nobody_stands_in_line():
    turns = Turns(Bucket(0))
    first, second = turns.place(lambda: None), turns.place(lambda: None)
    assert turns.wait(0.0, second) == 0
    assert turns.wait(0.0, first) == 0


def test_the_first_waits_for_the_rate_and_the_others_for_the_first():
    woken = []
    bucket, turns, (one, two) = line(lambda: woken.append(1), lambda: woken.append(2))
    assert 0.9 < turns.wait(0.0, one) <= 1
    assert turns.wait(0.0, two) == MAX_WAIT_SECONDS
    assert turns.wait(1.01, two) == MAX_WAIT_SECONDS
    assert turns.wait(1.01, one) == 0
    bucket.take(1.01, 5000)
    turns.took(one)
    assert woken == [2]
    assert 0.4 < turns.wait(1.01, two) < 0.6
    assert turns.wait(1.01, one) == MAX_WAIT_SECONDS
    assert turns.wait(2.0, two) == 0


def test_who_leaves_the_line_and_comes_back_has_its_old_place():
    _, turns, (one, two) = line(lambda: None, lambda: None)
    turns.wait(0.0, one)
    turns.wait(0.0, two)
    turns.leave(one)
    assert turns.wait(0.5, two) < MAX_WAIT_SECONDS
    turns.wait(0.5, one)
    assert turns.wait(2.0, two) == MAX_WAIT_SECONDS
    assert turns.wait(2.0, one) == 0


def test_who_is_gone_is_not_waited_for():
    woken = []
    _, turns, (one, two) = line(lambda: woken.append(1), lambda: woken.append(2))
    turns.wait(0.0, one)
    turns.wait(0.0, two)
    turns.leave(one)
    turns.leave(one)
    assert woken == [2]
    assert turns.wait(2.0, two) == 0


@settings(max_examples=50)
@given(st.data())
def test_whoever_waits_has_a_turn_before_another_has_two(data):
    bucket, turns, places = line(*[lambda: None] * 5)
    waiting, since, now = set(), Counter(), 1.1
    for _ in range(30):
        now += data.draw(st.sampled_from([0.0, 0.3, 0.7]))
        place = data.draw(st.sampled_from(places))
        if data.draw(st.integers(0, 5)) == 0:
            turns.leave(place)
            waiting.discard(place)
        elif turns.wait(now, place):
            waiting.add(place)
        else:
            bucket.take(now, 5000)
            turns.took(place)
            waiting.discard(place)
            for other in waiting:
                since[other, place] += 1
                assert since[other, place] <= 1
        for pair in [pair for pair in since if pair[0] not in waiting]:
            del since[pair]
