"""The real command with a real node, alone on the loopback."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cli import connection
from cli.connection import START_SECONDS, answers, connect, start_node, stop_child
from cli.demo.network import pause
from cli.node_process import STOP_SECONDS
from swarm.errors import NetworkError

pytestmark = pytest.mark.slow

STOP_SECONDS_IN_ALL = 10


@pytest.fixture
def environ(tmp_path, monkeypatch):
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    return dict(os.environ)


def start(home, *flags):
    line = [sys.executable, "-m", "cli", "join", "--home", str(home), "--listen", "127.0.0.1:0"]
    return subprocess.Popen(
        [*line, "--no-train", *flags],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until_it_answers(child, home):
    for _ in range(START_SECONDS * 10):
        if answers(home):
            return
        assert child.poll() is None, child.stderr.read()
        pause(child, 0.1)
    pytest.fail("the node did not come up")


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, None])
def test_a_node_stops_cleanly_when_it_is_told_to(environ, tmp_path, end):
    home = tmp_path / "home"
    child = start(home, "--json", "--until-stdin-closes")
    try:
        wait_until_it_answers(child, home)
        refused = start(home)
        _, said = refused.communicate(timeout=START_SECONDS)
        assert refused.returncode == 4
        assert f"process {child.pid}" in said
        if end is not None:
            child.send_signal(end)
        out, said = child.communicate(timeout=STOP_SECONDS + 1)  # closes its standard input
        assert child.returncode == 0, said
        assert json.loads(out.splitlines()[0])["pid"] == child.pid
        assert said.endswith("stopped\n")
        assert not (home / "control.sock").exists()
    finally:
        child.kill()
        child.wait()


def test_a_folder_that_knows_no_network_is_given_none_by_a_command_that_asks(
    environ, tmp_path, swarm
):
    for line in (["status"], ["tasks"]):
        code, out, err = swarm(*line)
        assert (code, out) == (3, "")
        assert "hint: `swarm join` starts one" in err
        assert not (tmp_path / "home").exists()


OF_A_FOLDER = [
    ["receipts"],
    ["status"],
    ["balance"],
    ["ls"],
    ["storage"],
    ["limit"],
    ["peers"],
    ["gc"],
    ["verify"],
    ["withdraw"],
]


def test_what_a_new_folder_holds_is_not_found_even_where_a_node_of_this_machine_runs(
    environ, tmp_path, swarm, monkeypatch
):
    other = start(tmp_path / "other")
    try:
        wait_until_it_answers(other, tmp_path / "other")
        monkeypatch.setenv("SWARM_BOOTSTRAP", "127.0.0.1:9")
        for line in OF_A_FOLDER:
            code, out, err = swarm(*line, "--home", "new")
            assert (code, out) == (3, ""), line
            assert "new, which is not there yet\nhint: `swarm join --home new` starts one" in err
        assert not (tmp_path / "new").exists()
    finally:
        other.terminate()
        other.communicate(timeout=START_SECONDS)
        other.kill()


def test_a_command_that_finds_no_node_starts_a_temporary_one_and_stops_it(environ, tmp_path, swarm):
    first = start(tmp_path / "home")
    try:
        wait_until_it_answers(first, tmp_path / "home")
        first.terminate()
        first.communicate(timeout=START_SECONDS)
    finally:
        first.kill()
        first.wait()
    code, out, err = swarm("status", "--json")
    assert code == 0, err
    status = json.loads(out)
    assert status["temporary"] is True
    assert "starting a temporary one (`swarm join` starts one that stays)" in err
    with pytest.raises(ProcessLookupError):
        os.kill(status["pid"], 0)


@pytest.mark.filterwarnings("ignore:subprocess")  # which is left running on purpose
def test_a_temporary_node_stays_while_another_command_uses_it(environ, tmp_path):
    home = tmp_path / "home"
    first = start(home)
    try:
        wait_until_it_answers(first, home)
        first.terminate()
        first.communicate(timeout=START_SECONDS)
    finally:
        first.kill()
        first.wait()
    with connect(home) as client:
        status = client.status()
        assert status["temporary"]
        watching = subprocess.Popen(
            [sys.executable, "-m", "cli", "status", "--watch", "--json", "--home", str(home)],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            text=True,
        )
        pid = status["pid"]
        assert json.loads(watching.stdout.readline())["pid"] == pid
    try:
        for _ in range(2):
            assert json.loads(watching.stdout.readline())["pid"] == pid  # who started it is gone
    finally:
        watching.send_signal(signal.SIGINT)
        watching.communicate(timeout=START_SECONDS)
    for _ in range(STOP_SECONDS_IN_ALL * 10):
        if not answers(home):
            return
        pause(watching, 0.1)
    pytest.fail("the node stays when nobody uses it")


def test_a_command_gives_up_on_a_node_that_another_one_does_not_end_stopping(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(connection, "LEAVE_SECONDS", 0.4)
    monkeypatch.setattr(connection, "TELL_SECONDS", 0.1)
    with (tmp_path / connection.USED_FILE).open("ab") as held:
        assert connection.is_last(held.fileno())
        with pytest.raises(NetworkError, match="has not stopped for"), connect(tmp_path):
            pass
    assert capsys.readouterr().err.count("waiting until a command's own node") == 1


def test_a_command_waits_for_the_node_that_another_one_is_starting(environ, tmp_path):
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    flags = ["--temporary", "--no-train", "--listen", "127.0.0.1:0"]
    first = start_node(home, flags, tmp_path / "first.log")
    try:
        while not (home / "genesis.cbor").exists():
            assert first.poll() is None
            pause(first, 0.02)
        assert not answers(home)
        first.send_signal(signal.SIGSTOP)  # it holds the folder, and does not answer yet
        second = subprocess.Popen(
            [sys.executable, "-m", "cli", "status", "--json", "--home", str(home)],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        log = home / "temporary.log"
        while not (log.exists() and "error: " in log.read_text()):  # its own node was refused
            assert second.poll() is None
            pause(second, 0.05)
        pause(second, 2)  # and has ended
        first.send_signal(signal.SIGCONT)
        told, said = second.communicate(timeout=START_SECONDS)
        assert second.returncode == 0, said
        assert json.loads(told)["pid"] == first.pid
        assert f"waiting for the node that has {home}" in said
    finally:
        stop_child(first)
