"""`swarm status`: how the node on this machine does."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import click

from cli import connection, output, standing, view

if TYPE_CHECKING:
    from pathlib import Path

WATCH_SECONDS = 2.0


@click.command("status")
@click.option("--watch", is_flag=True, help="Show it again every two seconds, until Ctrl-C.")
@connection.options
def command(*, watch: bool, home: Path, as_json: bool) -> None:
    """Show how the node does: what it does or why not, storage, tokens, task, what is wrong and what is about to cost.

    \b
    swarm status --watch
    swarm status --json | jq .state
    """  # noqa: D301 - \b is click's
    with connection.connect(home) as client:
        while True:
            status = client.status()
            if as_json:
                output.print_json(status)
            else:
                if watch:
                    click.clear()
                output.print_fields([*standing.rows(status), *view.fields(status)])
            if not watch:
                break
            threading.Event().wait(WATCH_SECONDS)
