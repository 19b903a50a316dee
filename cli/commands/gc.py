"""`swarm gc`: give back the room of what nothing keeps any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import connection, output
from swarm.sizes import counted, format_size

if TYPE_CHECKING:
    from pathlib import Path


@click.command("gc")
@click.option(
    "--thorough",
    is_flag=True,
    help="Also take what lies between chunks that are kept, which copies those.",
)
@connection.options
def command(*, thorough: bool, home: Path, as_json: bool) -> None:
    """Give back the room of what no pin and no task keeps any more.

    The node does so by itself in time. Ctrl-C stops it, and what was given back until then stays so.

    \b
    swarm unpin bafybei… && swarm gc
    """  # noqa: D301 - \b is click's
    with connection.connect(home, of_home=True) as client, output.progress_bar() as progress:
        done = client.collect(progress, thorough=thorough)
    if as_json:
        output.print_json(done)
        return
    freed = format_size(max(0, done["freed"]))
    click.echo(f"{freed} freed, {counted(done['dropped'], 'chunk')} dropped")
    if done["disk_full"]:
        output.say("it ended early: the disk has no room to copy what is kept")
    if done["reclaimable"]:
        size = format_size(done["reclaimable"])
        output.say(f"{size} lie between chunks that are kept; `swarm gc --thorough` takes them too")
    if done["damaged"]:
        output.say(
            f"damaged: {counted(len(done['damaged']), 'chunk')}; `swarm verify --repair` mends that"
        )
