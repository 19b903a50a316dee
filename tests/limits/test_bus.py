"""logind as it is asked on a real bus: a private dbus-daemon, and an object in logind's place."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading

import pytest
from jeepney import HeaderFields, MessageType, new_error, new_method_return
from jeepney.bus_messages import message_bus
from jeepney.io.blocking import open_dbus_connection

from swarm.limits import idle

DAEMON = shutil.which("dbus-daemon")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(DAEMON is None, reason="no dbus-daemon (Debian: dbus)"),
]
NOW = 1_000_000.0
NAME = "org.freedesktop.login1"
CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={path}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_type="method_call"/>
    <allow send_type="method_return"/>
    <allow send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
  </policy>
</busconfig>
"""


@pytest.fixture
def bus(tmp_path, monkeypatch):
    """A bus of its own, which this process takes for the system's."""
    path = tmp_path / "bus"
    (tmp_path / "bus.conf").write_text(CONFIG.format(path=path))
    child = subprocess.Popen(
        [DAEMON, "--nofork", "--print-address", f"--config-file={tmp_path / 'bus.conf'}"],
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        address = child.stdout.readline().strip()
        assert address.startswith("unix:path="), "the bus did not start"
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        yield address
        child.kill()


class Logind(threading.Thread):
    """Answers for logind on a bus, from a table of properties.

    Args:
        bus: The bus's address.
        properties: By name: the signature and the value; a name that is missing is refused.
    """

    def __init__(self, bus: str, properties: dict[str, tuple[str, object]]) -> None:
        super().__init__()
        self.properties = properties
        self.asked: list[tuple[str, str, str]] = []
        self._is_over = threading.Event()
        self._connection = open_dbus_connection(bus)
        reply = self._connection.send_and_get_reply(message_bus.RequestName(NAME), timeout=10)
        assert reply.body == (1,)

    def run(self) -> None:
        while True:
            try:
                message = self._connection.receive(timeout=0.05)
            except TimeoutError:
                if self._is_over.is_set():
                    self._connection.close()
                    return
                continue
            if message.header.message_type is not MessageType.method_call:
                continue
            path = message.header.fields[HeaderFields.path]
            interface, name = message.body
            self.asked.append((path, interface, name))
            if name in self.properties:
                answer = new_method_return(message, "v", (self.properties[name],))
            else:
                unknown = "org.freedesktop.DBus.Error.UnknownProperty"
                answer = new_error(message, unknown, "s", (f"no {name} here",))
            self._connection.send(answer)

    def close(self) -> None:
        self._is_over.set()
        self.join()


@pytest.fixture
def logind(bus):
    made = []

    def make(**properties):
        made.append(Logind(bus, properties))
        made[-1].start()
        return made[-1]

    yield make
    for one in made:
        one.close()


def look(tmp_path):
    return idle.look(root=tmp_path / "nothing", now=lambda: NOW)


def test_an_idle_machine_is_told_with_the_seconds_since_then(logind, tmp_path) -> None:
    since = int((NOW - 90) * 1e6)
    asked = logind(IdleHint=("b", True), IdleSinceHint=("t", since))
    assert look(tmp_path) == idle.Idle(90.0, idle.LOGIND)
    manager = "org.freedesktop.login1.Manager"
    assert asked.asked == [
        ("/org/freedesktop/login1", manager, "IdleHint"),
        ("/org/freedesktop/login1", manager, "IdleSinceHint"),
    ]


def test_a_machine_in_use_is_idle_for_no_second_whatever_it_says_of_before(
    logind, tmp_path
) -> None:
    logind(IdleHint=("b", False), IdleSinceHint=("t", 1))
    assert look(tmp_path) == idle.Idle(0.0, idle.LOGIND)


def test_a_logind_that_knows_no_idleness_leaves_the_machine_in_use(logind, tmp_path) -> None:
    logind(IdleHint=("b", True))
    found = look(tmp_path)
    assert found.seconds is None
    assert "logind refuses: no IdleSinceHint here" in found.why


def test_a_bus_without_a_logind_leaves_the_machine_in_use(bus, tmp_path) -> None:
    found = look(tmp_path)
    assert found.seconds is None
    assert "logind refuses" in found.why


def test_a_logind_that_is_silent_is_not_waited_for(bus, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(idle, "BUS_SECONDS", 0.05)
    with open_dbus_connection(bus) as silent:
        silent.send_and_get_reply(message_bus.RequestName(NAME), timeout=10)
        found = look(tmp_path)
    assert found.seconds is None
    assert "logind does not answer" in found.why


def test_a_bus_that_never_answers_is_not_waited_for(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(idle, "BUS_SECONDS", 0.2)
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path / 'mute'}")
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(tmp_path / "mute"))
        mute.listen()
        mute.settimeout(10)
        welcoming = threading.Thread(target=welcome, args=(mute,))
        welcoming.start()
        found = look(tmp_path)
        welcoming.join()
    assert found.seconds is None
    assert "logind does not answer" in found.why


def welcome(mute) -> None:
    """Let a client in, and answer nothing then."""
    stream, _ = mute.accept()
    with stream:
        asked = b""
        while b"BEGIN" not in asked:
            part = stream.recv(1024)
            if not part:
                return
            asked += part
            if b"AUTH" in part:
                stream.sendall(b"OK 0123456789abcdef0123456789abcdef\r\n")
        while stream.recv(1024):
            pass


def test_a_bus_that_is_gone_leaves_the_machine_in_use(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path / 'gone'}")
    found = look(tmp_path)
    assert found.seconds is None
    assert "logind does not answer" in found.why
