from datetime import datetime

import pytest

from swarm.limits.month import LEASE_BYTES, Month, ends_at

NOVEMBER = datetime(2026, 11, 21, 12).astimezone().timestamp()
DECEMBER = datetime(2026, 12, 1, 0, 0, 1).astimezone().timestamp()


def test_a_crash_makes_the_count_too_high_by_a_lease_and_never_too_low(tmp_path):
    month = Month(tmp_path / "t.json", NOVEMBER)
    for _ in range(100):
        month.sent += 3_000_000
        month.received += 1_000_000
        if month.is_due:
            month.promise(0, 0)
    again = Month(tmp_path / "t.json", NOVEMBER)  # without a close
    assert month.sent <= again.sent <= month.sent + LEASE_BYTES
    assert month.received <= again.received <= month.received + LEASE_BYTES


def test_a_clean_stop_counts_what_went(tmp_path):
    month = Month(tmp_path / "t.json", NOVEMBER)
    month.sent = 12_345
    month.promise(0, 0)
    month.close()
    assert Month(tmp_path / "t.json", NOVEMBER).sent == 12_345


def test_a_quick_line_is_promised_more(tmp_path):
    month = Month(tmp_path / "t.json", NOVEMBER)
    month.promise(100_000_000, 0)
    assert Month(tmp_path / "t.json", NOVEMBER).sent == 2_000_000_000


def test_a_month_that_is_over_is_counted_no_more(tmp_path):
    month = Month(tmp_path / "t.json", NOVEMBER)
    month.sent = 10**9
    month.close()
    assert Month(tmp_path / "t.json", DECEMBER).total == 0
    month.roll(DECEMBER)
    assert month.total == 0
    assert ends_at(NOVEMBER) == DECEMBER - 1


def test_a_clock_that_comes_back_finds_its_months_count_again(tmp_path):
    month = Month(tmp_path / "t.json", NOVEMBER)
    month.cap = 10**12
    month.sent = 990 * 10**9
    month.promise(0, 0)
    month.roll(DECEMBER)  # the clock is wrong for one look
    month.received = 10**9
    month.promise(0, 0)
    month.roll(NOVEMBER)
    assert (month.sent, month.received, month.is_reached) == (990 * 10**9, 0, True)
    assert month.is_due
    month.roll(DECEMBER)
    assert (month.sent, month.received) == (0, 10**9)
    month.close()
    assert Month(tmp_path / "t.json", NOVEMBER).sent == 990 * 10**9


def test_a_start_in_another_month_keeps_the_count_of_this_one(tmp_path):
    file = tmp_path / "t.json"
    file.write_text('{"month": "2026-11", "sent": 7, "received": 8, "line": 9}')  # an older version
    wrong = Month(file, DECEMBER)
    assert (wrong.total, wrong.line) == (0, 9)
    wrong.close()
    assert Month(file, NOVEMBER).total == 15


def test_the_counts_of_some_months_are_kept_and_no_more(tmp_path):
    month = Month(tmp_path / "t.json", NOVEMBER)
    for number in range(100):
        month.roll(NOVEMBER + number * 31 * 86_400)
        month.sent = 10**18
    month.close()
    assert Month(tmp_path / "t.json", NOVEMBER + 99 * 31 * 86_400).sent >= 10**18
    assert Month(tmp_path / "t.json", NOVEMBER + 95 * 31 * 86_400).sent >= 10**18
    assert Month(tmp_path / "t.json", NOVEMBER).total == 0


def test_rounds_end_before_serving_does_and_serving_before_the_cap():
    month = Month(None, NOVEMBER)
    month.sent = 10**12
    assert not month.is_reached
    month.cap = 10**9
    told = []
    for used in (959_999_999, 960_000_000, 979_999_999, 980_000_000):
        month.sent, month.received = used // 2, used - used // 2
        told.append((month.is_near, month.is_reached))
    assert told == [(False, False), (True, False), (True, False), (True, True)]


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{}", b"[1]", b'{"month": "2026-11", "sent": "x"}', b"\xff"),
        b'{"month": "2026-11", "sent": 1, "received": 1, "others": {"a": 1}}',
        b'{"month": "2026-11", "sent": 1, "received": 1e999}',
    ],
)
def test_a_file_that_cannot_be_read_counts_nothing(tmp_path, content):
    (tmp_path / "t.json").write_bytes(content)
    assert Month(tmp_path / "t.json", NOVEMBER).total == 0
