"""`swarm stake AMOUNT`: bond tokens to be a validator, or to weigh more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import connection, output
from cli.money import format_tokens, parse_tokens

if TYPE_CHECKING:
    from pathlib import Path


@click.command("stake", epilog="Example: swarm stake 1000")
@click.argument("amount")
@click.option("--no-wait", is_flag=True, help="Do not wait until it is final.")
@connection.options
def command(*, amount: str, no_wait: bool, home: Path, as_json: bool) -> None:
    """Bond AMOUNT tokens of this node's account; prints the transaction's id.

    It counts two epochs later, and can be taken out again with `swarm unstake`.
    """
    units = parse_tokens(amount)
    with connection.connect(home, of_home=True) as client:
        sent = client.stake(units, wait=not no_wait)
    if as_json:
        output.print_json(sent)
        return
    click.echo(sent["tx"])
    if sent["height"] is None:
        output.say(f"{format_tokens(units)} tokens to stake: handed in")
        return
    output.say(
        f"{format_tokens(sent['stake'])} tokens are staked since block {sent['height']:,};"
        f" that counts from epoch {sent['epoch']:,} on"
    )
