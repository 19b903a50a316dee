"""Idle, battery and GPU: the rules on values that were read, and the probes on files."""

import os
import sys

import pytest

from swarm.limits import gpu, idle, power
from swarm.limits.gpu import Reading
from swarm.limits.idle import Idle
from swarm.limits.pace import MAX_TASKS, RoundTimes
from swarm.limits.power import Supply


def test_a_machine_that_is_in_use_or_that_does_not_tell_makes_work_wait():
    assert (
        idle.judge(Idle(299.0, "logind"), 300) == "not idle: 4m59s of 5m without input (by logind)"
    )
    assert idle.judge(Idle(300.0, "logind"), 300) == ""
    assert "cannot be told: no bus" in idle.judge(Idle(None, why="no bus"), 300)


def test_the_terminal_that_was_typed_into_last_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(idle, "_logind", lambda: "no logind")
    (tmp_path / "dev/pts").mkdir(parents=True)
    for name, seconds in (("dev/tty1", 1000.0), ("dev/pts/0", 5000.0), ("dev/pts/ptmx", 9000.0)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (seconds, 9999.0))
    assert idle.look(tmp_path, lambda: 5100.0) == Idle(100.0, "terminals")


def test_terminals_are_not_believed_where_somebody_may_sit_before_a_display(tmp_path, monkeypatch):
    monkeypatch.setattr(idle, "_logind", lambda: "no logind")
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/tty1").touch()
    (tmp_path / "tmp/.X11-unix").mkdir(parents=True)
    (tmp_path / "tmp/.X11-unix/X0").touch()
    assert idle.look(tmp_path).seconds is None
    assert idle.by_terminals([], 0.0, "no logind").seconds is None


def test_logind_is_believed_before_terminals(tmp_path, monkeypatch):
    monkeypatch.setattr(idle, "_logind", lambda: (True, 4000.0))
    assert idle.look(tmp_path, lambda: 5000.0) == Idle(1000.0, "logind")
    monkeypatch.setattr(idle, "_logind", lambda: (False, 0.0))
    assert idle.look(tmp_path, lambda: 5000.0) == Idle(0.0, "logind")


BATTERY = Supply("battery", status="discharging")


@pytest.mark.parametrize(
    ("supplies", "is_on_battery"),
    [
        ([], False),
        ([BATTERY], True),
        ([BATTERY, Supply("mains", "0")], True),
        ([BATTERY, Supply("mains", "1")], False),
        ([BATTERY, Supply("mains", "0"), Supply("usb", "1")], False),
        ([Supply("battery", status="charging")], False),
        ([Supply("battery", status="full"), Supply("mains", "0")], False),
        ([Supply("battery", status="discharging", scope="device")], False),
        ([Supply("ups", status="discharging")], True),
    ],
)
def test_a_battery_that_empties_counts_where_nothing_else_feeds_the_machine(
    supplies, is_on_battery
):
    assert power.on_battery(supplies) is is_on_battery


def test_the_kernels_files_are_read(tmp_path):
    for name, files in {
        "BAT0": {"type": "Battery\n", "status": "Discharging\n"},
        "AC": {"type": "Mains\n", "online": "0\n"},
    }.items():
        (tmp_path / name).mkdir()
        for file, text in files.items():
            (tmp_path / name / file).write_text(text)
    assert power.supplies(tmp_path) == [Supply("mains", "0"), BATTERY]
    assert power.supplies(tmp_path / "none") == []


def test_a_gpu_that_was_too_hot_goes_on_when_it_is_five_degrees_cooler():
    told = []
    waits = False
    for celsius in (79, 80, 81, 80, 76, 75, 74, 80):
        waits = bool(gpu.judge([Reading(40, None), Reading(celsius, 100)], 80, 0, waits=waits))
        told.append(waits)
    assert told == [False, False, True, True, True, True, False, False]


def test_a_gpu_that_took_too_much_goes_on_a_tenth_below():
    assert (
        gpu.judge([Reading(50, 251)], 0, 250, waits=False)
        == "the GPU takes 251 W, and 250 W are allowed"
    )
    assert gpu.judge([Reading(50, 240)], 0, 250, waits=True)
    assert not gpu.judge([Reading(50, 225)], 0, 250, waits=True)


def test_a_limit_on_a_gpu_that_tells_nothing_makes_work_wait():
    assert "does not tell" in gpu.judge([], 80, 0, waits=False)
    assert not gpu.judge([], 0, 0, waits=False)


NVML = """
class NVMLError(Exception): ...

NVML_TEMPERATURE_GPU = 0
nvmlInit = lambda: None
nvmlDeviceGetCount = lambda: 1
nvmlDeviceGetHandleByIndex = lambda index: index
nvmlDeviceGetTemperature = lambda device, sensor: 51
nvmlDeviceGetPowerUsage = lambda device: 90_000

def nvmlDeviceGetName(device):
    return b"RTX \\xae".decode()

def nvmlDeviceGetUtilizationRates(device):
    raise NVMLError

nvmlDeviceGetMemoryInfo = nvmlDeviceGetUtilizationRates
"""


def test_a_gpu_whose_name_is_no_text_is_still_read(tmp_path, monkeypatch):
    (tmp_path / "pynvml.py").write_text(NVML)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    assert gpu.Nvml().read() == [Reading(51.0, 90.0)]
    del sys.modules["pynvml"]


def test_round_times_outlive_a_restart_and_are_bounded(tmp_path):
    times = RoundTimes(tmp_path / "r.json")
    for task in range(MAX_TASKS + 5):
        times.note(bytes([task]), 100.0)
    again = RoundTimes(tmp_path / "r.json")
    assert again.of(bytes([MAX_TASKS])) == pytest.approx(110)
    assert again.of(b"\0") is None
    for damaged in (b'{"aa": []}', b'{"aa": 1%b}' % (b"0" * 400)):
        (tmp_path / "r.json").write_bytes(damaged)
        assert RoundTimes(tmp_path / "r.json").of(b"\xaa") is None
