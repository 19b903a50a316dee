"""Commands that a person is told to type: as they work for the data folder that was given."""

from __future__ import annotations

import re
import shlex
from contextvars import ContextVar
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pathlib import Path

_given: ContextVar[Path | None] = ContextVar("given", default=None)
_COMMAND = re.compile(r"(?<![\w./~-])swarm ([a-z]+(?:-[a-z]+)*)(?: ([a-z]+))?")
_NEXT = re.compile(r"`|\bswarm ")
"""Where what is typed ends at the latest."""


def note(home: Path | None) -> None:
    """Keep the data folder that this command was given by its flag; None: it was given none."""
    _given.set(home)


def typed(text: str) -> str:
    """A text in which each command that has a `--home` names the data folder that was given."""
    home = _given.get()
    return text if home is None else _COMMAND.sub(lambda found: _with(home, found), text)


def _with(home: Path, found: re.Match[str]) -> str:
    words = _takes_home(found[1], found[2])
    if not words or " --home" in _NEXT.split(found.string[found.end() :], maxsplit=1)[0]:
        return found[0]
    begin = " ".join(("swarm", *words))
    return f"{begin} --home {shlex.quote(str(home))}{found[0].removeprefix(begin)}"


def _takes_home(name: str, below: str | None) -> tuple[str, ...]:
    """The words of the command that takes the option; none where there is no such command."""
    from cli.main import COMMANDS, swarm

    if name not in COMMANDS:
        return ()
    words: tuple[str, ...] = (name,)
    command = swarm.get_command(click.Context(swarm), name)
    if isinstance(command, click.Group) and below is not None and below in command.commands:
        command, words = command.commands[below], (name, below)
    has_home = command is not None and any(one.name == "home" for one in command.params)
    return words if has_home else ()
