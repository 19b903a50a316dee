"""`swarm doctor`: what is wrong with the node on this machine, and what mends it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from cli import advice, connection, output

if TYPE_CHECKING:
    from pathlib import Path

    from swarm.care.check import Check

OF_NODE = frozenset({"node", "port"})
"""Checks that take it that no node runs where none has answered."""
MARKS = {"good": "ok", "warn": "warn", "bad": "BAD", "unknown": "?"}


@click.command("doctor")
@connection.options
def command(*, home: Path, as_json: bool) -> int:
    """Say what is wrong with this machine or its node, and the command that mends it.

    Works with and without a running node, and changes nothing.
    What cannot be known from here is marked with a question mark.
    Ends with 1 where something is bad.

    \b
    swarm doctor
    swarm doctor --json | jq 'select(.verdict == "bad")'
    """  # noqa: D301 - \b is click's
    from swarm.care.doctor import is_well

    found = examine(home)
    if as_json:
        output.print_json(one.to_json() for one in found)
    else:
        for line in lines(found):
            click.echo(output.harmless(line))
    return 0 if is_well(found) else 1


def examine(home: Path) -> list[Check]:
    """Ask the node that runs on a data folder, if one does, and look at this machine."""
    from swarm.care import doctor
    from swarm.care.check import bad
    from swarm.client import Client
    from swarm.config import Settings, default_settings_file
    from swarm.errors import RefusedError

    settings = Settings.build({"home": home}, os.environ, default_settings_file())
    report = None
    if connection.answers(home):
        with Client.of_home(home) as client:
            try:
                report = client.care()
            except RefusedError as error:  # a node of another version, whose report may be another
                rest = [one for one in doctor.examine(settings, None) if one.name not in OF_NODE]
                return [bad("node", error.message, error.hint or ""), *rest]
    return doctor.examine(settings, report)


def lines(found: list[Check]) -> list[str]:
    """One line a check, and one below it that says what mends it."""
    width = max(len(one.name) for one in found)
    told = []
    for one in found:
        told.append(f"{MARKS[one.verdict]:<4}  {one.name:<{width}}  {one.text}")
        if one.fix:
            told.append(f"{'':<4}  {'':<{width}}  mend: {advice.typed(one.fix)}")
    return told
