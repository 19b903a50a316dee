"""`swarm balance [ACCOUNT]`: what an account owns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import connection, output
from cli.money import format_tokens

if TYPE_CHECKING:
    from pathlib import Path


@click.command("balance", epilog="Example: swarm balance 12D3KooW…")
@click.argument("account", required=False)
@connection.options
def command(*, account: str | None, home: Path, as_json: bool) -> None:
    """Show what an account (a peer id) owns; this node's own if none is given."""
    with connection.connect(home, of_home=account is None) as client:
        found = client.balance(account)
    if as_json:
        output.print_json(found)
        return
    output.print_fields(
        (
            ("account", found["account"]),
            *(
                (name, f"{format_tokens(found[name])} tokens")
                for name in ("balance", "stake", "earned")
            ),
        )
    )
