from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.errors import UsageError
from swarm.limits.schedule import Schedule

BERLIN = ZoneInfo("Europe/Berlin")
NIGHTS = Schedule.parse("mon-fri 19:00-07:00; sat,sun 0:00-24:00")


def at(text, zone=BERLIN, fold=0):
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp()


@pytest.mark.parametrize(
    ("time", "is_open"),
    [
        ("2026-11-16 18:59:59", False),  # a Monday
        ("2026-11-16 19:00", True),
        ("2026-11-17 06:59:59", True),
        ("2026-11-17 07:00", False),
        ("2026-11-16 03:00", True),  # Sunday's day ends at 24:00, and Monday's night has not begun
        ("2026-11-21 12:00", True),
        ("2026-11-21 06:00", True),
    ],
)
def test_hours_are_those_of_the_wall_and_go_on_over_midnight(time, is_open):
    expected = is_open if time != "2026-11-16 03:00" else False
    assert NIGHTS.is_open(at(time), BERLIN) is expected


def test_the_next_change_is_the_end_of_the_open_hours_or_their_begin():
    assert NIGHTS.changes_at(at("2026-11-17 12:00"), BERLIN) == at("2026-11-17 19:00")
    assert NIGHTS.changes_at(at("2026-11-17 23:00"), BERLIN) == at("2026-11-18 07:00")
    # Friday's night and the weekend are one stretch.
    assert NIGHTS.changes_at(at("2026-11-20 20:00"), BERLIN) == at("2026-11-23 00:00")


def test_a_night_in_which_the_clock_goes_back_is_an_hour_longer():
    nights = Schedule.parse("daily 22:00-06:00")
    begin, end = at("2026-10-24 22:00"), at("2026-10-25 06:00")
    assert end - begin == 9 * 3600
    assert nights.changes_at(begin, BERLIN) == end
    assert nights.fits(begin, 9 * 3600, BERLIN)
    assert not nights.fits(begin, 9 * 3600 + 1, BERLIN)


def test_a_night_in_which_the_clock_goes_forward_is_an_hour_shorter():
    nights = Schedule.parse("daily 22:00-06:00")
    begin = at("2026-03-28 22:00")
    assert nights.changes_at(begin, BERLIN) == begin + 7 * 3600
    assert not nights.fits(begin, 7 * 3600 + 1, BERLIN)


def test_hours_that_a_moved_clock_skips_are_not_waited_for_and_those_it_shows_twice_are_open_twice():
    skipped = Schedule.parse("sun 2:10-2:50")
    assert skipped.changes_at(at("2026-03-28 12:00"), BERLIN) == at("2026-04-05 02:10")
    assert skipped.is_open(at("2026-10-25 02:30", fold=0), BERLIN)
    assert skipped.is_open(at("2026-10-25 02:30", fold=1), BERLIN)
    first_end = skipped.changes_at(at("2026-10-25 02:30", fold=0), BERLIN)
    assert skipped.changes_at(first_end, BERLIN) == at("2026-10-25 02:10", fold=1)


def test_hours_end_where_the_clock_jumps_over_their_end():
    early = Schedule.parse("sun 0:00-2:30")
    assert early.changes_at(at("2026-03-29 00:30"), BERLIN) == at("2026-03-29 03:00")


def test_a_week_without_an_end_never_changes():
    assert Schedule.parse("daily 0:00-24:00").changes_at(0.0, UTC) is None
    assert Schedule.parse("sun-sat 12:00-12:01; daily 0:00-24:00").fits(0.0, 1e9, UTC)


def test_days_may_run_over_the_end_of_the_week():
    weekend = Schedule.parse("sat-mon 10:00-11:00")
    assert len(weekend.windows) == 3
    assert Schedule.parse("sun 23:00-1:00").windows == ((0, 60), (10_020, 10_080))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "no schedule"),
        (";;", "no schedule"),
        ("mon", "has no hours"),
        ("mon-fir 10:00-11:00", "'fir'"),
        ("10:00-11:00", "'10:00-11:00'"),
        ("mon 25:00-26:00", "not a time of day"),
        ("mon 10:60-11:00", "not a time of day"),
        ("mon 24:00-1:00", "not a time of day"),
        ("mon 10:00-10:00", "empty"),
        ("mon 10-11", "no hours"),
        ("mon,, 10:00-11:00", "''"),
        ("mon 10:00-11:00 " * 100, "no schedule"),
    ],
)
def test_what_is_no_schedule_is_refused_with_the_part_that_is_wrong(text, named):
    with pytest.raises(UsageError) as raised:
        Schedule.parse(text)
    assert named in raised.value.message
    assert "mon-fri 19:00-07:00" in raised.value.hint


@given(
    st.integers(0, 6),
    st.integers(0, 1439),
    st.integers(1, 1439),
    st.integers(1_700_000_000, 1_900_000_000),
)
def test_nothing_changes_before_the_time_that_is_told_and_then_it_does(day, begin, length, now):
    end = (begin + length) % 1440
    names = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
    text = f"{names[day]} {begin // 60}:{begin % 60:02}-{end // 60}:{end % 60:02}"
    schedule = Schedule.parse(text)
    is_open = schedule.is_open(now, BERLIN)
    then = schedule.changes_at(now, BERLIN)
    assert then is not None
    assert then > now
    assert schedule.is_open(then, BERLIN) is not is_open
    for part in range(1, 40):
        assert schedule.is_open(now + (then - now) * part / 40 - 1e-3, BERLIN) is is_open
