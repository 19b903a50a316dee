"""`swarm resume`: go on with what was paused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import connection, output
from cli.commands.pause import PARTS, paused

if TYPE_CHECKING:
    from pathlib import Path


@click.command("resume")
@click.argument("part", default="all", type=click.Choice(PARTS))
@connection.options
def command(*, part: str, home: Path, as_json: bool) -> None:
    """Go on with what `swarm pause` holds back, and take `swarm finish` back.

    \b
    swarm resume train
    """  # noqa: D301 - \b is click's
    from swarm.client import Client

    with Client.of_home(home) as client:
        told = client.resume(part)
    if as_json:
        output.print_json(told)
        return
    click.echo(
        f"resumed: {', '.join(told['resumed'])}" if told["resumed"] else "nothing was paused"
    )
    if left := paused(told):
        click.echo(f"still paused: {left}")
