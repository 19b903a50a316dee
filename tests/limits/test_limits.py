"""What is held back, of wishes, a clock and what the machine tells."""

import threading
from datetime import datetime
from pathlib import Path

import pytest
import trio

from swarm.care.controls import CPU, GPU, SEAL, SERVE, TRAIN, Controls
from swarm.config import LIMITS, Settings, read_setting, show_setting
from swarm.errors import UsageError
from swarm.limits import service
from swarm.limits.gpu import SILENT, Reading
from swarm.limits.idle import Idle
from swarm.limits.line import AUTO
from swarm.limits.month import Month
from swarm.limits.power import Supply
from swarm.limits.service import Limits
from swarm.limits.traffic import Traffic
from swarm.limits.wishes import Wishes

MONDAY_NOON = datetime(2026, 11, 16, 12).astimezone().timestamp()


class Machine:
    """A node's limits on a clock that the test turns."""

    def __init__(self, path=None, **asked):
        self.now = MONDAY_NOON
        self.idle = Idle(0.0, "test")
        self.supplies = []
        self.controls = Controls(None, lambda: self.now)
        self.traffic = Traffic(None, clock=lambda: self.now, now=lambda: self.now)
        values = {name: read_setting(name, text) for name, text in asked.items()}
        self.wishes = Wishes(Settings(home=Path("/nowhere"), **values), path)
        self.limits = Limits(
            self.wishes,
            self.traffic,
            self.controls,
            now=lambda: self.now,
            look_idle=lambda: self.idle,
            look_power=lambda: self.supplies,
        )
        self.limits._look()

    def code(self, part):
        self.limits._look()
        found = self.controls.reason(part)
        return None if found is None else found.code


def test_outside_of_the_schedule_nothing_is_trained_or_sealed_and_the_reason_says_until_when():
    machine = Machine(schedule="daily 19:00-7:00")
    reason = machine.controls.reason(TRAIN)
    assert (reason.code, reason.until) == ("schedule", MONDAY_NOON + 7 * 3600)
    assert "until 2026-11-16 19:00" in reason.why
    assert machine.code(SEAL) == "schedule"
    assert machine.code(SERVE) is None
    machine.now += 7 * 3600
    assert machine.code(TRAIN) is None


def test_a_round_that_does_not_fit_into_the_hours_that_are_left_is_not_begun():
    machine = Machine(schedule="daily 11:00-13:00")
    assert not machine.controls.why_not_now(TRAIN, 3600)
    assert "no time" in machine.controls.why_not_now(TRAIN, 3601)
    assert not machine.controls.why_not_now(TRAIN, None)
    assert not machine.controls.is_paused(TRAIN)


def test_a_machine_that_is_used_again_ends_training_at_once():
    machine = Machine(idle="5m")
    assert machine.code(TRAIN) == "idle"
    machine.idle = Idle(301.0, "test")
    assert machine.code(TRAIN) is None
    machine.idle = Idle(1.0, "test")
    assert machine.code(SEAL) == "idle"
    assert machine.controls.is_paused(TRAIN)


def test_a_gpu_may_ask_for_less_or_more_idle_time_than_the_processor():
    machine = Machine(idle="5m", idle_gpu="1m")
    machine.idle = Idle(100.0, "test")
    machine.controls.on_gpu = lambda: True
    assert (machine.code(TRAIN), machine.code(SEAL)) == (None, "idle")
    machine.controls.on_gpu = lambda: False
    assert machine.code(TRAIN) == "idle"


def test_on_battery_nothing_is_trained_unless_that_is_wanted():
    machine = Machine()
    machine.supplies = [Supply("battery", status="discharging")]
    assert machine.code(TRAIN) == "battery"
    machine.limits.change("on_battery", "yes")
    assert machine.code(TRAIN) is None


def test_near_the_months_cap_no_round_is_begun_and_at_it_nothing_is_served():
    machine = Machine(monthly_cap="100GB")
    machine.traffic.month.sent = 96 * 10**9
    assert machine.code(TRAIN) == "cap"
    assert not machine.controls.is_paused(TRAIN)  # what was begun is still handed over
    assert not machine.traffic.refuses("/swarm/exchange/1.0.0")
    machine.traffic.month.sent = 98 * 10**9
    assert machine.code(SERVE) == "cap"
    assert machine.controls.is_paused(TRAIN)
    assert machine.traffic.refuses("/swarm/exchange/1.0.0")
    assert machine.traffic.refuses("/swarm/retrieval/1.0.0")
    assert not machine.traffic.refuses("/swarm/consensus/1.0.0")
    assert not machine.traffic.refuses("/swarm/audit/1")


def test_a_month_is_capped_at_a_share_of_the_line_if_nobody_says_otherwise():
    machine = Machine()
    assert machine.traffic.month.cap == 10**12
    machine.traffic.line.best = 10.0**7
    machine.limits.change("upload", "auto")
    assert machine.traffic.month.cap == 10**7 * 30 * 86_400 // 4
    machine.traffic.month.received = machine.traffic.month.cap
    assert machine.code(SERVE) == "cap"
    machine.limits.change("monthly_cap", "off")
    assert machine.code(SERVE) is None


def test_a_cap_that_follows_the_line_outlives_a_restart(tmp_path):
    month = Month(tmp_path / "traffic.json", MONDAY_NOON)
    traffic = Traffic(month, clock=lambda: 0.0)
    traffic.line.best = 10.0**7
    traffic.limit(AUTO, 0, AUTO)
    month.close()
    again = Traffic(Month(tmp_path / "traffic.json", MONDAY_NOON), clock=lambda: 0.0)
    again.limit(AUTO, 0, AUTO)
    assert again.month.cap == month.cap > 10**12


def test_a_cap_that_was_changed_when_none_was_the_default_still_holds(tmp_path):
    path = tmp_path / "limits.json"
    path.write_text('{"monthly_cap": ["off", "500GB"]}')
    assert Machine(path).wishes["monthly_cap"] == 5 * 10**11


def test_a_gpu_that_is_paused_holds_training_back_only_where_one_trains():
    machine = Machine()
    machine.controls.pause([GPU], 7200)
    assert machine.code(TRAIN) is None
    machine.controls.on_gpu = lambda: True
    assert machine.code(TRAIN) == "paused"
    assert machine.controls.why(TRAIN).startswith("gpu paused until ")
    machine.controls.resume([GPU])
    machine.controls.pause([CPU], None)
    assert (machine.code(TRAIN), machine.code(SEAL)) == (None, "paused")


def test_while_nothing_is_served_nothing_is_trained_since_nobody_could_fetch_it():
    machine = Machine()
    machine.controls.pause([SERVE], None)
    assert machine.code(TRAIN) == "no_serving"
    assert machine.code(SEAL) is None


def test_a_limit_that_was_changed_holds_until_the_node_is_started_with_another(tmp_path):
    path = tmp_path / "limits.json"
    Machine(path, upload="5MB/s").limits.change("upload", "2MB/s")
    assert Machine(path, upload="5MB/s").traffic.upload == 2_000_000
    assert Machine(path, upload="6MB/s").traffic.upload == 6_000_000
    assert Machine(path).wishes["upload"] == AUTO


def test_a_limit_that_is_none_changes_nothing(tmp_path):
    machine = Machine(tmp_path / "limits.json", upload="5MB/s")
    for name, text in (("upload", "fast"), ("votes", "1"), ("schedule", "never"), ("cpu", "200%")):
        with pytest.raises(UsageError):
            machine.limits.change(name, text)
    assert machine.traffic.upload == 5_000_000
    assert not (tmp_path / "limits.json").exists()


@pytest.mark.parametrize("content", [b"", b"[]", b'{"upload": 3}', b'{"upload": ["auto", "fast"]}'])
def test_a_file_of_changes_that_cannot_be_read_changes_nothing(tmp_path, content):
    (tmp_path / "limits.json").write_bytes(content)
    assert Machine(tmp_path / "limits.json").wishes["upload"] == AUTO


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("upload", "auto"),
        ("upload", "16Mbit/s"),
        ("upload", "off"),
        ("download", "5MB/s"),
        ("monthly_cap", "500GB"),
        ("monthly_cap", "auto"),
        ("monthly_cap", "off"),
        ("schedule", "mon 1:00-2:00"),
        ("schedule", "off"),
        ("idle", "5m"),
        ("idle", "off"),
        ("idle_gpu", "as idle"),
        ("idle_gpu", "off"),
        ("on_battery", "yes"),
        ("cpu", "50%"),
        ("cpu", "7.5%"),
        ("gpu_power", "250W"),
        ("gpu_heat", "80C"),
        ("gpu_heat", "off"),
    ],
)
def test_what_is_shown_of_a_limit_can_be_typed_again(name, text):
    assert name in LIMITS
    value = read_setting(name, text)
    assert read_setting(name, show_setting(name, value)) == value


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("16MB/s", 16_000_000),
        ("16MBps", 16_000_000),
        ("16mb/s", 16_000_000),
        ("16MiB/s", 2**24),
        ("16M", 16_000_000),
        ("16Mbit/s", 2_000_000),
        ("16 Mbits/s", 2_000_000),
        ("16Mbps", 2_000_000),
        ("16mbps", 2_000_000),
        ("16Mb/s", 2_000_000),
        ("800000bps", 100_000),
    ],
)
def test_a_rate_in_the_bits_that_lines_are_sold_by_is_an_eighth_of_one_in_bytes(text, rate):
    assert read_setting("upload", text) == rate


def test_a_status_tells_every_limit():
    told = Machine(schedule="daily 1:00-2:00", idle="5m").limits.told()
    assert set(told["asked"]) == set(LIMITS)
    assert told["idle"] == {"seconds": 0.0, "by": "test", "why": ""}
    assert told["schedule"]["open"] is False


async def test_a_driver_that_hangs_holds_training_back_and_neither_the_other_limits_nor_the_end(
    monkeypatch,
):
    monkeypatch.setattr(service, "GPU_SECONDS", 0.02)
    asked, answers = [], threading.Event()

    class Hanging:
        def read(self):
            asked.append("once")
            answers.wait(20)
            return [Reading(50.0, 100.0)]

    machine = Machine(gpu_heat="80")
    machine.limits._gpus = Hanging()
    machine.controls.on_gpu = lambda: True
    try:
        with trio.fail_after(5):
            await machine.limits.look()
            assert machine.controls.why(TRAIN) == SILENT
            assert not machine.controls.is_paused(TRAIN)  # a round that runs is ended first
            machine.supplies = [Supply("battery", status="discharging")]
            await machine.limits.look()
        assert machine.controls.reason(TRAIN).code == "battery"
        assert asked == ["once"]
    finally:
        answers.set()
    machine.supplies = []
    with trio.fail_after(5):
        while machine.controls.holds(TRAIN):  # goes on when it answers again
            await machine.limits.look()
