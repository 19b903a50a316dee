"""`swarm unstake AMOUNT`: take tokens out of the stake."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import connection, output
from cli.money import format_tokens, parse_tokens

if TYPE_CHECKING:
    from pathlib import Path


@click.command("unstake", epilog="Example: swarm unstake 250.5")
@click.argument("amount")
@click.option("--no-wait", is_flag=True, help="Do not wait until it is final.")
@connection.options
def command(*, amount: str, no_wait: bool, home: Path, as_json: bool) -> None:
    """Take AMOUNT tokens out of this node's stake; prints the transaction's id.

    They can be withdrawn once they have unbonded, and are slashable until then.
    """
    units = parse_tokens(amount)
    with connection.connect(home, of_home=True) as client:
        sent = client.unstake(units, wait=not no_wait)
    if as_json:
        output.print_json(sent)
        return
    click.echo(sent["tx"])
    if sent["height"] is None:
        output.say(f"{format_tokens(units)} tokens to take out: handed in")
    else:
        output.say(
            f"{format_tokens(sent['stake'])} tokens stay staked;"
            f" `swarm withdraw` takes the {format_tokens(units)} from block {sent['withdrawable']:,} on"
        )
    if sent["stakes_again"]:
        output.say(
            "hint: this node stakes up to the bond by itself when the account owns more than that;"
            " SWARM_VALIDATE=false or --reader stops it"
        )
