"""`swarm status`: how the node on this machine does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import connection, output, view
from cli.commands.pause import paused

if TYPE_CHECKING:
    from pathlib import Path


@click.command("status")
@connection.options
def command(*, home: Path, as_json: bool) -> None:
    """Show how the node does: network, height, storage, tokens, task, and what is wrong."""
    with connection.connect(home) as client:
        status = client.status()
    if as_json:
        output.print_json(status)
    else:
        output.print_fields([*view.fields(status), ("paused", paused(status))])
