"""What strangers wrote reaches the terminal as text, whichever door it takes, and never as its controls."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from rich.console import Console

from cli import output, view
from swarm.errors import NotFoundError
from tests.control.fake_node import FakeNode

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b2J\rtokens: 1,000,000\x7f\u202e"
CONTROLS = frozenset(EVIL) - frozenset("]0;owned[2Jtokens: 1,000,000")


def doors():
    """Every printer of text, by its name."""
    return {
        "say": lambda: output.say(f"problem: {EVIL}"),
        "fields": lambda: output.print_fields([(EVIL, "x"), ("problem", EVIL)]),
        "table": lambda: output.print_table(("name",), [(EVIL,)]),
        "json": lambda: output.print_json({"name": EVIL}),
        "view": lambda: Console(file=sys.stdout, force_terminal=True, color_system=None).print(
            view.panel(FakeNode(Path("home")).status() | {"problems": [EVIL]})
        ),
    }


@pytest.mark.parametrize("door", doors())
def test_no_printer_passes_on_what_steers_the_terminal(door, capsys):
    doors()[door]()
    said = capsys.readouterr()
    text = said.out + said.err
    assert not CONTROLS & set(text)
    assert "owned" in text


def test_an_error_and_its_hint_cannot_steer_the_terminal_nor_feign_a_line_of_ours(
    swarm, monkeypatch
):
    def fail(*_):
        raise NotFoundError(f"{EVIL}\nhint: run this", EVIL)

    monkeypatch.setattr("cli.connection.settings_home", fail)
    code, _, err = swarm("status")
    assert code == 3
    assert not CONTROLS & set(err)
    assert [line.partition(" ")[0] for line in err.splitlines()] == ["error:", "", "hint:"]


def test_a_row_stays_a_row_whatever_stands_in_its_cells(capsys):
    output.print_table(("name", "size"), [("a\nb  1 B", "2 B")])
    output.print_fields([("problem", "a\nstate  well")])
    assert len(capsys.readouterr().out.splitlines()) == 3


@pytest.mark.parametrize("text", ["a\x1b\x7f\x9b\u202eé…", "\udcff", "\U000e0001", 'a"\\\n'])
def test_json_is_read_back_as_it_was(text, capsys):
    output.print_json({"name": text})
    line = capsys.readouterr().out.removesuffix("\n")
    assert line.isprintable()
    assert json.loads(line) == {"name": text}
