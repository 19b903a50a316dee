"""`swarm withdraw`: take back what has unbonded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import connection, output
from cli.money import format_tokens

if TYPE_CHECKING:
    from pathlib import Path


@click.command("withdraw", epilog="Example: swarm withdraw --json")
@click.option("--no-wait", is_flag=True, help="Do not wait until it is final.")
@connection.options
def command(*, no_wait: bool, home: Path, as_json: bool) -> None:
    """Take back what was unstaked and has unbonded; prints the transaction's id."""
    with connection.connect(home, of_home=True) as client:
        sent = client.withdraw(wait=not no_wait)
    if as_json:
        output.print_json(sent)
        return
    click.echo(sent["tx"])
    where = "handed in" if sent["height"] is None else f"final in block {sent['height']:,}"
    output.say(f"{format_tokens(sent['amount'])} tokens back: {where}")
