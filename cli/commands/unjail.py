"""`swarm unjail`: be a validator again after a slash."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import connection, output

if TYPE_CHECKING:
    from pathlib import Path


@click.command("unjail", epilog="Example: swarm unjail")
@click.option("--no-wait", is_flag=True, help="Do not wait until it is final.")
@connection.options
def command(*, no_wait: bool, home: Path, as_json: bool) -> None:
    """Ask to be a validator again, once the time in jail is over; prints the transaction's id.

    `swarm validators` shows until when a validator is jailed.
    """
    with connection.connect(home, of_home=True) as client:
        sent = client.unjail(wait=not no_wait)
    if as_json:
        output.print_json(sent)
        return
    click.echo(sent["tx"])
    if sent["height"] is not None:
        output.say(
            f"out of jail since block {sent['height']:,}; counts from epoch {sent['epoch']:,} on"
        )
