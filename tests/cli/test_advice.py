"""A command that a person is told to type works as it is printed, for the data folder that was given."""

from __future__ import annotations

import contextvars
from pathlib import Path

import pytest

from cli import advice
from cli.commands import doctor
from cli.commands.status import lines
from swarm.care.check import bad
from tests.control.fake_node import FakeNode


def typed(home, text):
    def run():
        advice.note(home)
        return advice.typed(text)

    return contextvars.copy_context().run(run)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("start one with: swarm join", "start one with: swarm join --home there"),
        ("`swarm key backup` shows them", "`swarm key backup --home there` shows them"),
        ("`swarm key`, or `swarm join`", "`swarm key --home there`, or `swarm join --home there`"),
        (
            "swarm finish, then swarm join",
            "swarm finish --home there, then swarm join --home there",
        ),
        ("`swarm verify --repair`", "`swarm verify --home there --repair`"),
        ("watch it: swarm train watch x", "watch it: swarm train watch --home there x"),
        ("`swarm tasks` lists them", "`swarm tasks --home there` lists them"),
        ("swarm scoreboard key", "swarm scoreboard --home there key"),
        (
            "a faster disk: swarm join --home DIRECTORY",
            "a faster disk: swarm join --home DIRECTORY",
        ),
        ("`swarm new --example` prints one", "`swarm new --example` prints one"),
        ("a later version of swarm wrote it", "a later version of swarm wrote it"),
        ("/opt/swarm join", "/opt/swarm join"),
    ],
)
def test_each_command_that_takes_a_home_names_the_one_that_was_given(text, told):
    assert typed(Path("there"), text) == told
    assert typed(None, text) == text


def test_a_folder_with_a_space_is_typed_as_a_shell_reads_it():
    assert typed(Path("my node"), "`swarm gc`") == "`swarm gc --home 'my node'`"


def test_what_is_told_without_a_node_names_the_folder_that_was_asked(swarm, tmp_path):
    code, _, err = swarm("page", "--home", "other")
    assert (code, err.splitlines()[-1]) == (5, "hint: start one with: swarm join --home other")
    assert swarm("page")[2].endswith("hint: start one with: swarm join\n")
    _, _, err = swarm("pause", "--home", "other")
    assert "swarm join --home other" in err


def test_the_doctors_mends_name_the_folder_that_was_asked(swarm, tmp_path):
    _, out, _ = swarm("doctor", "--home", "other")
    assert "mend: swarm join --home other" in out
    told = doctor.lines([bad("store", "1 chunk damaged", "swarm verify --repair")])
    assert told[-1].endswith("mend: swarm verify --home other --repair")


def test_the_rows_of_a_status_name_it_too(node, swarm, tmp_path):
    told = FakeNode(tmp_path).status() | {"backed_up": False}
    assert any("`swarm key backup`" in one for one in lines(told))
    assert swarm("status", "--home", str(tmp_path / "home"))[0] == 0
    assert any(f"`swarm key backup --home {tmp_path}/home`" in one for one in lines(told))
