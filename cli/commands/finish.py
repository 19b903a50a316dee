"""`swarm finish`: end what the running round still needs, then stop the node."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import click

from cli import connection, output
from swarm.errors import NetworkError
from swarm.sizes import counted

if TYPE_CHECKING:
    from pathlib import Path

STOP_SECONDS = 30
"""For a node that owes nothing any more to go."""
POLL_SECONDS = 0.1


@click.command("finish")
@click.option("--no-wait", is_flag=True, help="Do not wait for the end; the node goes by itself.")
@connection.options
def command(*, no_wait: bool, home: Path, as_json: bool) -> None:
    """End what this node has begun in the running round, then stop it.

    Nothing new is begun: an update that is being made is ended, handed in and opened first.
    Ctrl-C ends the waiting, not the finishing; `swarm resume` takes it back.

    \b
    swarm finish
    """  # noqa: D301 - \b is click's
    from swarm.client import Client

    with Client.of_home(home) as client, output.progress_bar() as progress:
        told = client.finish(progress, wait=not no_wait)
    stopped = told["finishing"] and not no_wait
    if stopped:
        _wait(home)
    if as_json:
        output.print_json(told | {"stopped": stopped})
    elif stopped:
        click.echo("finished and stopped")
    elif told["finishing"]:
        click.echo(f"finishing: something is owed to {counted(told['owing'], 'task')}")
    else:
        click.echo("taken back: the node goes on")


def _wait(home: Path) -> None:
    """Wait until the node answers no more.

    Raises:
        NetworkError: It does not go.
    """
    deadline = time.monotonic() + STOP_SECONDS
    while connection.answers(home):
        if time.monotonic() > deadline:
            message = f"the node is done and has not stopped within {STOP_SECONDS} s"
            raise NetworkError(message, "`swarm status` says what it does")
        threading.Event().wait(POLL_SECONDS)
