"""What a node says waits for nobody who reads it."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from cli.aside import MAX_HELD_BYTES, Aside
from cli.connection import START_SECONDS, answers
from cli.demo.network import pause
from swarm.client import Client

ROOT = Path(__file__).parents[2]
SAYS_MUCH = """
import sys
from cli.aside import told_aside
with told_aside():
    for at in range(300):
        print("x" * 1000, file=sys.stderr, flush=True)
print("and after it", file=sys.stderr)
"""


def started(command, terminal, **options):
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env=os.environ | {"TERM": "xterm"},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        preexec_fn=lambda: (os.setsid(), fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)),
        **options,
    )


def test_who_talks_to_a_terminal_that_nobody_reads_comes_to_its_end():
    ours, theirs = os.openpty()
    child = started(["-c", SAYS_MUCH], theirs)
    try:
        assert child.wait(30) == 0
    finally:
        child.kill()
        child.wait()
        os.close(ours)
        os.close(theirs)


def test_all_is_written_in_its_order_where_somebody_reads():
    shown = subprocess.run(
        [sys.executable, "-c", SAYS_MUCH.replace('"x" * 1000', "at")],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert shown.stderr.split("\n") == [*map(str, range(300)), "and after it", ""]


def test_a_reader_that_has_gone_is_told_to_who_says_more():
    theirs, ours = os.pipe()
    with os.fdopen(ours, "w") as stream:
        aside = Aside(stream)
        aside.write("nobody is told too much")
        assert aside.drain(10)
        os.close(theirs)
        aside.write("one more")
        assert aside.drain(10)
        with pytest.raises(BrokenPipeError):
            aside.write("and more")


def test_what_waits_is_bounded():
    theirs, ours = os.pipe()
    with os.fdopen(ours, "w") as stream:
        aside = Aside(stream)
        for _ in range(10):
            assert aside.write("x" * MAX_HELD_BYTES) == MAX_HELD_BYTES
        assert len(aside._held) <= MAX_HELD_BYTES
        os.close(theirs)
        assert aside.drain(10)


@pytest.mark.slow
def test_a_node_whose_terminal_nobody_reads_answers_and_stops(tmp_path, monkeypatch):
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    home = tmp_path / "home"
    ours, theirs = os.openpty()
    flags = ["--home", str(home), "--no-train", "--listen", "127.0.0.1:0"]
    child = started(["-m", "cli", "join", *flags], theirs)
    try:
        for _ in range(START_SECONDS * 10):
            if answers(home):
                break
            pause(child, 0.1)
        pause(child, 6)  # a view of half a second fills a terminal in two
        assert Client.of_home(home).status()["peers"] == 0
        child.send_signal(signal.SIGINT)
        assert child.wait(15) == 0
    finally:
        child.kill()
        child.wait()
        os.close(ours)
        os.close(theirs)
