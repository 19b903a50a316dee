"""`swarm send TO AMOUNT`: pay an account."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from cli import connection, output
from cli.money import UNIT, format_tokens, may_be_decimal, parse_tokens

if TYPE_CHECKING:
    from pathlib import Path


@click.command("send", epilog="Example: swarm send 12D3KooW… 12.5")
@click.argument("to")
@click.argument("amount")
@click.option("--no-wait", is_flag=True, help="Do not wait until the payment is final.")
@connection.options
def command(*, to: str, amount: str, no_wait: bool, home: Path, as_json: bool) -> None:
    """Pay AMOUNT tokens to the account TO (a peer id); prints the transaction's id.

    A comma in AMOUNT only parts thousands, and on a terminal you are asked whether you mean that.
    """
    units = parse_tokens(amount)
    if may_be_decimal(amount) and sys.stdin.isatty() and sys.stderr.isatty():
        click.confirm(f"{amount} is {units // UNIT} tokens: send them?", abort=True, err=True)
    with connection.connect(home, of_home=True) as client:
        sent = client.send(to, units, wait=not no_wait)
    if as_json:
        output.print_json(sent)
        return
    click.echo(sent["tx"])
    where = "handed in" if sent["height"] is None else f"final in block {sent['height']:,}"
    output.say(f"{format_tokens(units)} tokens to {to}: {where}")
