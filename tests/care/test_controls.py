import pytest

from swarm.care.controls import (
    MAX_PAUSE_SECONDS,
    PARTS,
    SEAL,
    TRAIN,
    Controls,
    parse_duration,
    parts_of,
)
from swarm.errors import UsageError


class Clock:
    def __init__(self):
        self.now = 1_800_000_000.0

    def __call__(self):
        return self.now


def test_a_pause_ends_by_itself_when_its_time_is_over():
    clock = Clock()
    controls = Controls(None, clock)
    controls.pause([TRAIN], 7200)
    clock.now += 7199
    assert controls.holds(TRAIN)
    clock.now += 1
    assert not controls.holds(TRAIN)
    assert controls.told() == {"paused": [], "finishing": False, "held": []}


def test_a_pause_of_one_part_holds_no_other():
    controls = Controls()
    controls.pause([SEAL], None)
    assert controls.is_paused(SEAL)
    assert not controls.is_paused(TRAIN)


def test_a_pause_outlives_a_restart_until_its_time_is_over(tmp_path):
    clock = Clock()
    Controls(tmp_path / "controls.json", clock).pause([TRAIN], 60)
    again = Controls(tmp_path / "controls.json", clock)
    assert again.told()["paused"] == [{"part": TRAIN, "until": clock.now + 60}]
    clock.now += 61
    assert not Controls(tmp_path / "controls.json", clock).is_paused(TRAIN)


def test_a_pause_that_was_resumed_stays_resumed_after_a_restart(tmp_path):
    controls = Controls(tmp_path / "controls.json")
    controls.pause(PARTS, None)
    assert controls.resume([TRAIN]) == [TRAIN]
    again = Controls(tmp_path / "controls.json")
    assert not again.is_paused(TRAIN)
    assert again.is_paused(SEAL)


def test_a_pause_that_cannot_be_remembered_is_not_made(tmp_path):
    controls = Controls(tmp_path / "gone" / "controls.json")
    with pytest.raises(OSError, match="No such file"):
        controls.pause([TRAIN], None)
    assert not controls.is_paused(TRAIN)


def test_a_later_pause_replaces_the_end_of_an_earlier_one():
    clock = Clock()
    controls = Controls(None, clock)
    controls.pause([TRAIN], 60)
    controls.pause([TRAIN], None)
    clock.now += 3600
    assert controls.why(TRAIN) == "paused until `swarm resume`"


def test_a_node_that_finishes_begins_nothing_and_breaks_nothing_off():
    controls = Controls()
    controls.is_finishing = True
    assert controls.holds(TRAIN)
    assert not controls.is_paused(TRAIN)
    controls.resume([TRAIN])
    assert not controls.holds(TRAIN)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"[]", b"{", b'{"train": "soon"}', b'{"train": [1]}', b"[" * 4000, b"\xff", b"7"),
        *(b'{"train": Infinity}', b'{"train": NaN}', b'{"train": 1e300}', b'{"train": 1e12}'),
        b'{"train": 1' + b"0" * 400 + b"}",
    ],
)
def test_a_file_that_cannot_be_read_holds_nothing_back(tmp_path, content):
    (tmp_path / "controls.json").write_bytes(content)
    told = Controls(tmp_path / "controls.json").told()
    assert (told["paused"], told["held"]) == ([], [])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2h", 7200), ("90m", 5400), ("1d12h", 129_600), ("45s", 45), ("30", 1800), (" 1H5M ", 3900)],
)
def test_a_time_is_read_as_people_write_it(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0s", "h", "2x", "-1h", "1h2", "2 h", "999d", "1.5h"])
def test_what_is_no_time_is_refused_with_the_way_to_write_it(text):
    with pytest.raises(UsageError) as raised:
        parse_duration(text)
    assert "2h" in raised.value.hint


def test_no_pause_with_an_end_is_longer_than_a_year():
    clock = Clock()
    controls = Controls(None, clock)
    controls.pause([TRAIN], 10**12)
    assert controls.told()["paused"][0]["until"] == clock.now + MAX_PAUSE_SECONDS


def test_a_part_that_is_not_there_is_refused():
    assert parts_of("all") == PARTS
    assert parts_of("gpu") == ("gpu",)
    with pytest.raises(
        UsageError, match="'votes' cannot be paused: train, seal, serve, gpu, cpu or all"
    ):
        parts_of("votes")
