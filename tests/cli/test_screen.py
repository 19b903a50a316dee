"""What goes on until Ctrl-C: as much as the terminal has room for, and no error at its end."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from cli import screen
from cli.commands.status import lines
from tests.control.fake_node import FakeNode

ROOT = Path(__file__).parents[2]


def rows(told, width, height):
    """What a terminal of that size shows of a frame: the text of each row."""
    text = screen.frame(told, width, height)
    assert text.startswith(screen.HOME)
    return re.sub(r"\x1b\[[HJK]", "", text).split("\n")


def test_lines_are_cut_at_the_width_and_the_head_is_kept():
    told = [f"line {at} " + "x" * 100 for at in range(30)]
    shown = rows(told, 40, 24)
    assert len(shown) == 24
    assert shown[0] == told[0][:39] + "…"
    assert shown[-1] == "… and 7 more; a taller window shows them"
    assert max(map(len, shown)) == 40


def test_what_fits_is_shown_whole_and_what_stood_below_goes():
    assert rows(["a" * 40, "b"], 40, 3) == ["a" * 40, "b", ""]
    assert screen.frame(["a"] * 3, 40, 3).count("\n") == 2  # a fourth row would scroll
    assert screen.frame(["a"], 40, 3).endswith(screen.REST)


def test_a_wide_character_counts_as_the_two_columns_that_it_takes():
    assert rows(["\N{CJK UNIFIED IDEOGRAPH-4E00}" * 10], 9, 3)[0] == (
        "\N{CJK UNIFIED IDEOGRAPH-4E00}" * 4 + "…"
    )


def test_a_status_of_a_temporary_node_says_first_that_none_runs():
    status = FakeNode(Path("there")).status()
    assert not any("temporary" in one for one in lines(status))
    first, *_ = lines(status | {"temporary": True})
    assert first.startswith("node")
    assert "none runs here: `swarm join` starts it" in first


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        (["status", "--watch"], "swarm.client.Client.status"),
        (["status", "--watch", "--json"], "swarm.client.Client.status"),
        (["train", "watch", "tiny-gpt"], "swarm.client.Client.watch"),
        (["serve", "tiny-gpt"], "swarm.client.Client.serve"),
        (["logs", "-f"], "cli.commands.logs._lines"),
    ],
)
def test_ctrl_c_is_how_a_view_ends_and_no_error(node, swarm, tmp_path, monkeypatch, line, asked):
    def interrupt(*_args, **_named):
        raise KeyboardInterrupt

    (tmp_path / "home" / "logs").mkdir()
    (tmp_path / "home" / "logs" / "node.jsonl").touch()
    monkeypatch.setattr(asked, interrupt)
    assert swarm(*line) == (130, "", "")
    if line[0] in {"status", "train"}:
        once = ["status"] if line[0] == "status" else [*line, "--once"]
        assert swarm(*once) == (130, "", "\nerror: interrupted\n")


@pytest.mark.slow
def test_a_small_terminal_is_drawn_on_without_scrolling_and_given_back(node, tmp_path):
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 8, 40, 0, 0))
    environ = {
        name: value for name, value in os.environ.items() if name not in {"LINES", "COLUMNS"}
    }
    child = subprocess.Popen(
        [sys.executable, "-m", "cli", "status", "--watch"],
        cwd=ROOT,
        env=environ | {"TERM": "xterm"},
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.PIPE,
    )
    os.close(theirs)
    seen = b""
    try:
        while seen.count(b"\x1b[H") < 2:  # drawn a second time
            seen += os.read(ours, 4096)
        child.send_signal(signal.SIGINT)
        while data := _read(ours):
            seen += data
        assert (child.wait(10), child.stderr.read()) == (130, b"")
    finally:
        child.kill()
        child.wait()
        child.stderr.close()
        os.close(ours)
    text = seen.decode().replace("\r\n", "\n")  # as the terminal writes the end of a line
    assert "\x1b[2J" not in text
    before, drawn = text.split(screen.ENTER)
    drawn, after = drawn.split(screen.LEAVE)
    assert before == ""
    for one in drawn.split(screen.HOME)[1:]:
        shown = re.sub(r"\x1b\[[JK]", "", one).split("\n")
        assert len(shown) == 8
        assert all(len(row) <= 40 for row in shown)
        assert shown[0].startswith("network")
    assert "data folder" in after  # what was shown last stays, whole


@pytest.mark.slow
def test_a_view_that_is_stopped_gives_the_terminal_back_until_it_goes_on(node):
    ours, theirs = os.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "cli", "status", "--watch"],
        cwd=ROOT,
        env=os.environ | {"TERM": "xterm"},
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.PIPE,
        process_group=0,  # with a parent in its session, as under a shell: else the kernel stops nobody
    )
    os.close(theirs)
    enter, leave, home = (one.encode() for one in (screen.ENTER, screen.LEAVE, screen.HOME))
    seen = b""
    try:
        while home not in seen:
            seen += os.read(ours, 4096)
        child.send_signal(signal.SIGTSTP)
        assert os.WIFSTOPPED(os.waitpid(child.pid, os.WUNTRACED)[1])
        while leave not in seen:
            seen += os.read(ours, 4096)
        assert seen.endswith(leave)  # and the page of the shell is what stays
        child.send_signal(signal.SIGCONT)
        again = b""
        while home not in again:
            again += os.read(ours, 4096)
        assert again.startswith(enter + home)
        child.send_signal(signal.SIGINT)
        while data := _read(ours):
            again += data
        assert (child.wait(10), child.stderr.read()) == (130, b"")
        assert again.count(leave) == 1
    finally:
        child.kill()
        child.wait()
        child.stderr.close()
        os.close(ours)


DRAWS_TWICE = """
from cli.screen import drawn
with drawn() as draw:
    draw(["from behind"])
    print("drawn", flush=True, file=__import__("sys").stderr)
    input()
    draw(["in front"])
"""
SHELL = """
import os, subprocess, sys
job = subprocess.Popen([sys.executable, "-c", sys.argv[1]], process_group=0,
    stdin=subprocess.PIPE, stderr=subprocess.PIPE)
assert job.stderr.readline() == b"drawn\\n"
os.tcsetpgrp(1, job.pid)
job.communicate(b"\\n")
sys.exit(job.returncode)
"""


def test_nothing_is_drawn_from_the_background():
    ours, theirs = os.openpty()
    shell = subprocess.Popen(
        [sys.executable, "-c", SHELL, DRAWS_TWICE],
        cwd=ROOT,
        env=os.environ | {"TERM": "xterm"},
        stdout=theirs,
        preexec_fn=lambda: (os.setsid(), fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)),
    )
    os.close(theirs)
    seen = b""
    try:
        while data := _read(ours):
            seen += data
        assert shell.wait(10) == 0
    finally:
        shell.kill()
        shell.wait()
        os.close(ours)
    assert seen.startswith((screen.ENTER + screen.HOME).encode() + b"in front")


def test_a_bar_that_is_stopped_leaves_the_cursor_to_the_shell():
    ours, theirs = os.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", DRAWS_A_BAR],
        cwd=ROOT,
        env=os.environ | {"TERM": "xterm"},
        stdin=subprocess.PIPE,
        stderr=theirs,
        process_group=0,
    )
    os.close(theirs)
    hide, show = screen.HIDE_CURSOR.encode(), screen.SHOW_CURSOR.encode()
    seen = b""
    try:
        while b"hash" not in seen:
            seen += os.read(ours, 4096)
        assert hide in seen
        for _ in range(2):
            child.send_signal(signal.SIGTSTP)
            assert os.WIFSTOPPED(os.waitpid(child.pid, os.WUNTRACED)[1])
            while seen.count(show) < seen.count(hide):
                seen += os.read(ours, 4096)
            child.send_signal(signal.SIGCONT)
            while seen.count(hide) == seen.count(show):
                seen += os.read(ours, 4096)
        child.stdin.close()
        while data := _read(ours):
            seen += data
        assert child.wait(10) == 0
    finally:
        child.kill()
        child.wait()
        os.close(ours)
    assert seen.count(hide) == seen.count(show) == 3


def test_a_stop_after_the_terminal_is_gone_breaks_nothing_in_the_middle():
    ours, theirs = os.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", IS_STOPPED],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=theirs,
        process_group=0,
    )
    os.close(theirs)
    try:
        assert child.stdout.readline() == b"begun\n"
        os.close(ours)
        child.send_signal(signal.SIGTSTP)
        assert os.WIFSTOPPED(os.waitpid(child.pid, os.WUNTRACED)[1])
        child.send_signal(signal.SIGCONT)
        assert child.communicate(b"\n", 10)[0] == b"went on\n"
    finally:
        child.kill()
        child.wait()


IS_STOPPED = """
from cli.screen import cursor_shown_while_stopped
with cursor_shown_while_stopped():
    print("begun", flush=True)
    input()
    print("went on", flush=True)
"""


DRAWS_A_BAR = """
import sys
from cli import output
with output.progress_bar() as tell:
    tell("hash", 1, 2)
    sys.stdin.read()
"""


def _read(descriptor):
    try:
        return os.read(descriptor, 4096)
    except OSError:  # nobody has the other side open any more
        return b""
