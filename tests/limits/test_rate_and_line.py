from hypothesis import given
from hypothesis import strategies as st

from swarm.limits.line import MIN_RATE, PROBE_EVERY_SECONDS, PROBE_SECONDS, Line
from swarm.limits.rate import MAX_DEBT_SECONDS, MIN_BURST, Bucket


@given(st.integers(100_000, 10**8), st.lists(st.integers(1, 10**6), min_size=20, max_size=60))
def test_what_waits_for_its_turn_keeps_to_the_rate_but_for_one_burst_and_one_turn(rate, sizes):
    bucket, now, sent = Bucket(rate), 0.0, 0
    for size in sizes:
        now += bucket.wait(now)
        count = min(size, bucket.turn(1, 10**6))
        bucket.take(now, count)
        sent += count
    assert sent <= rate * now + bucket.burst + bucket.turn(1, 10**6) + len(sizes)


def test_what_went_at_once_holds_back_what_can_wait_and_never_for_long():
    bucket = Bucket(1_000_000)
    bucket.take(0.0, 500_000)
    assert 0 < bucket.wait(0.0) <= 0.5
    bucket.take(0.0, 10**9)
    assert bucket.wait(0.0) <= MAX_DEBT_SECONDS + 0.1


def test_without_a_rate_nothing_waits():
    bucket = Bucket()
    bucket.take(0.0, 10**12)
    assert bucket.wait(0.0) == 0
    assert bucket.turn(10, 1000) == 1000


def test_a_lower_rate_takes_away_what_was_saved_for_a_burst():
    bucket = Bucket(100_000_000)
    bucket.limit(1.0, 100_000)
    bucket.take(1.0, MIN_BURST)
    assert bucket.wait(1.0) > 0


def test_a_debt_of_a_high_rate_holds_back_a_low_one_for_no_longer_than_its_own_would():
    bucket = Bucket(100_000_000)
    bucket.take(0.0, 10**9)
    bucket.limit(0.0, 50_000)
    assert 0 < bucket.wait(0.0) <= MAX_DEBT_SECONDS + 0.1


def full(line, now, seconds, rate):
    """The line is given more than it takes."""
    end = now + seconds
    while now < end:
        line.begin(now)
        now += 0.5
        line.end(now, int(rate / 2))
    return now


def test_a_line_that_was_never_full_is_not_limited():
    line = Line()
    for second in range(100):
        line.begin(second)
        line.end(second + 0.01, 10**6)
    assert line.best == 0
    assert line.limit(100.0) == 0


def test_of_a_line_that_is_full_four_fifths_are_taken_and_the_first_stretch_does_not_count():
    line = Line()
    line.begin(0.0)
    line.end(0.01, 4_000_000)  # what the kernel's buffers take
    now = full(line, 0.01, 5.5, 1_000_000)
    assert line.limit(now) == 0
    now = full(line, now, 6, 1_000_000)
    assert 750_000 <= line.limit(now) <= 850_000


def test_a_line_that_is_faster_than_thought_shows_it_when_nothing_is_limited_for_a_while():
    line = Line()
    now = full(line, 0.0, 20, 1_000_000)
    now += PROBE_EVERY_SECONDS
    assert line.limit(now) == 0
    now = full(line, now, PROBE_SECONDS - 1, 5_000_000)
    now += 2
    assert line.limit(now) >= 3_900_000


def test_a_line_that_has_become_slower_is_believed_by_steps():
    line = Line()
    now = full(line, 0.0, 20, 10_000_000)
    before = line.best
    now += PROBE_EVERY_SECONDS
    line.limit(now)
    full(line, now, PROBE_SECONDS, 1_000_000)
    assert 0.7 * before <= line.best <= 0.95 * before


def test_no_line_is_shared_below_the_least_rate():
    line = Line()
    now = full(line, 0.0, 20, 1000)
    assert line.limit(now) == MIN_RATE
