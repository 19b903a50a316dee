"""Who is let in: codes, sessions of two halves, and the file of the secret."""

from __future__ import annotations

import pytest

from swarm.errors import RefusedError
from swarm.page import access
from swarm.page.access import Access, load_or_create


class Clock:
    now = 1_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def door(clock):
    return Access("t" * 43, clock)


def test_a_code_gives_one_session_and_no_second(door):
    code = door.new_code()
    session = door.exchange(code)
    assert door.lets_in(session.key, session.cookie)
    assert door.exchange(code) is None


def test_a_code_that_nobody_gave_out_is_worth_nothing(door):
    door.new_code()
    assert door.exchange("A" * 22) is None
    assert door.exchange("") is None
    assert door.exchange("\udcff") is None


def test_a_code_is_good_for_ten_minutes(door, clock):
    code, other = door.new_code(), door.new_code()
    clock.now += access.CODE_SECONDS - 1
    assert door.exchange(code) is not None
    clock.now += 1
    assert door.exchange(other) is None


def test_codes_that_nobody_follows_do_not_pile_up(door):
    codes = [door.new_code() for _ in range(access.MAX_CODES + 1)]
    assert door.exchange(codes[0]) is None
    assert all(door.exchange(one) is not None for one in codes[1:])


def test_neither_half_of_a_session_is_of_use_alone_or_with_another_s(door):
    one, two = door.exchange(door.new_code()), door.exchange(door.new_code())
    assert not door.lets_in(one.key, two.cookie)
    assert not door.lets_in(one.key, "")
    assert not door.lets_in("", one.cookie)


def test_a_session_ends_after_thirty_days_and_its_key_cannot_be_made_to_say_later(door, clock):
    session = door.exchange(door.new_code())
    ends, _, rest = session.key.partition(".")
    later = f"{int(ends, 16) + 1:x}.{rest}"
    assert not door.lets_in(later, session.cookie)
    clock.now += access.SESSION_SECONDS - 1
    assert door.lets_in(session.key, session.cookie)
    clock.now += 1
    assert not door.lets_in(session.key, session.cookie)


def test_a_session_outlives_the_process_and_not_the_secret(door, clock):
    session = door.exchange(door.new_code())
    assert Access("t" * 43, clock).lets_in(session.key, session.cookie)
    assert not Access("u" * 43, clock).lets_in(session.key, session.cookie)


def test_nodes_of_one_machine_have_cookies_of_different_names(door):
    assert Access("u" * 43).cookie_name != door.cookie_name


def test_the_secret_s_file_is_for_its_owner_alone_and_stays(tmp_path):
    token = load_or_create(tmp_path)
    path = tmp_path / access.FILE
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_or_create(tmp_path) == token
    assert path.read_text() == f"{token}\n"


def test_a_secret_that_others_can_read_is_refused(tmp_path):
    load_or_create(tmp_path)
    (tmp_path / access.FILE).chmod(0o644)
    with pytest.raises(RefusedError, match="0644"):
        load_or_create(tmp_path)


@pytest.mark.parametrize("damage", [b"", b"short\n", b"\xff" * 44, b"x" * 5000])
def test_a_damaged_secret_is_made_anew(tmp_path, damage):
    path = tmp_path / access.FILE
    path.touch(0o600)
    path.write_bytes(damage)
    token = load_or_create(tmp_path)
    assert path.read_text() == f"{token}\n"
    assert len(token) == 43
