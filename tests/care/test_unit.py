import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from swarm.care.notify import READY, notify
from swarm.care.unit import MARK, Unit, quoted
from swarm.errors import UsageError

PROGRAM = ("/opt/swarm/bin/swarm",)
STATE = Path("/var/lib/swarm")


def settings(unit):
    lines = [line.split("=", 1) for line in unit.text().splitlines() if "=" in line]
    assert len({name for name, _ in lines}) == len(lines)
    return dict(lines)


def test_a_system_service_is_told_when_it_is_ready_and_may_write_its_data_alone():
    found = settings(Unit(PROGRAM, STATE, account="me", keeps_state=True))
    assert found["Type"] == "notify"
    assert found["ExecStart"] == "/opt/swarm/bin/swarm join --no-view --home /var/lib/swarm"
    assert found["User"] == "me"
    assert (found["ProtectSystem"], found["ProtectHome"]) == ("strict", "yes")
    assert found["StateDirectory"] == "swarm"
    assert found["CapabilityBoundingSet"] == ""
    assert found["WantedBy"] == "multi-user.target"
    assert "ReadWritePaths" not in found


def test_a_gpu_stays_visible():
    plain = settings(Unit(PROGRAM, STATE, account="me"))
    gpu = settings(Unit(PROGRAM, STATE, ("--gpu",), account="me", has_gpu=True))
    assert plain.keys() - gpu.keys() == {
        "PrivateDevices",
        "ProtectClock",
        "SystemCallFilter",
        "SystemCallErrorNumber",
    }


@pytest.mark.parametrize(
    ("program", "home"),
    [("/home/me/env/bin/swarm", "/srv/swarm"), ("/opt/swarm", "/home/me/swarm")],
)
def test_a_program_or_data_below_a_home_can_still_be_read(program, home):
    found = settings(Unit((program,), Path(home), account="me"))
    assert found["ProtectHome"] == "read-only"
    assert found["ReadWritePaths"] == home


def test_a_users_own_service_asks_for_nothing_that_needs_a_mount():
    found = settings(Unit(PROGRAM, Path("/home/me/x"), is_user=True))
    assert found["WantedBy"] == "default.target"
    assert found["NoNewPrivileges"] == "yes"
    assert not {"User", "ProtectSystem", "PrivateTmp", "CapabilityBoundingSet"} & found.keys()


def test_the_unit_says_who_wrote_it():
    assert Unit(PROGRAM, STATE, account="me").text().startswith(MARK)


@pytest.mark.slow
@pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="no systemd-analyze (Debian: systemd)"
)
@pytest.mark.parametrize("is_user", [False, True])
@pytest.mark.parametrize("has_gpu", [False, True])
def test_systemd_itself_finds_no_fault_with_the_unit(tmp_path, is_user, has_gpu):
    program = tmp_path / "swarm node"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    account = None if is_user else "root"
    flags = ("--gpu", "--schedule", "mon-fri 19:00-07:00; sat,sun 0:00-24:00")
    unit = Unit((str(program),), STATE, flags, account=account, is_user=is_user, has_gpu=has_gpu)
    (tmp_path / "swarm.service").write_text(unit.text())
    line = ["systemd-analyze", "verify", "--man=no", *(["--user"] if is_user else [])]
    done = subprocess.run(
        [*line, str(tmp_path / "swarm.service")],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)},
        timeout=60,
    )
    said = [one for one in done.stderr.splitlines() if "swarm.service" in one]
    assert (done.returncode, said) == (0, [])


def test_words_mean_to_systemd_what_they_say():
    assert quoted("/a b/100%/$HOME") == '"/a b/100%%/$$HOME"'
    assert quoted('say "hi"\\') == '"say \\"hi\\"\\\\"'
    assert quoted("") == '""'
    with pytest.raises(UsageError):
        quoted("a\nExecStartPre=/bin/rm")


@pytest.mark.parametrize("is_abstract", [False, True])
def test_what_is_told_arrives_at_the_socket_of_systemd(tmp_path, is_abstract):
    name = f"@swarm-{os.getpid()}" if is_abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(name.replace("@", "\0"))
        systemd.settimeout(5)
        assert notify(name, READY)
        assert systemd.recv(100) == b"READY=1"


@pytest.mark.parametrize("address", [None, "", "relative", "/nobody/listens", "/" + "x" * 200])
def test_without_systemd_nothing_is_told(address):
    assert not notify(address, READY)


def test_a_systemd_that_reads_nothing_does_not_hold_the_node_up(tmp_path):
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(name)
        sent = [notify(name, READY) for _ in range(2000)]
    assert not all(sent)
