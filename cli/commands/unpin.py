"""`swarm unpin CID`: keep content no longer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import connection, output
from cli.roots import parse_root

if TYPE_CHECKING:
    from pathlib import Path


@click.command("unpin")
@click.argument("cid")
@connection.options
def command(*, cid: str, home: Path, as_json: bool) -> None:
    """Keep what a CID names no longer; `swarm gc`, or the node in time, gives its room back.

    \b
    swarm unpin bafybei…
    """  # noqa: D301 - \b is click's
    with connection.connect(home, of_home=True) as client:
        unpinned = client.unpin(parse_root(cid))
    if as_json:
        output.print_json(unpinned)
        return
    click.echo(unpinned["cid"])
    if unpinned["held_for"]:
        output.say(f"the node still keeps it for: {', '.join(unpinned['held_for'])}")
    else:
        output.say("its room comes back in time, or now with `swarm gc`")
