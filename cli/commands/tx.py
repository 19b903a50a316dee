"""`swarm tx ID`: what became of a transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import connection, output

if TYPE_CHECKING:
    from pathlib import Path


@click.command("tx", epilog="Example: swarm tx 5be1…")
@click.argument("identifier", metavar="ID")
@connection.options
def command(*, identifier: str, home: Path, as_json: bool) -> None:
    """Show whether a transaction waits, is in a block, or failed and why.

    One that is neither waiting nor in a block is not found: it expired, or was never sent to this node.
    """
    with connection.connect(home) as client:
        found = client.transaction(identifier)
    if as_json:
        output.print_json(found)
        return
    status = {"waiting": "waits for a block", "done": "done", "failed": "failed"}[found["status"]]
    until = found.get("valid_until")
    output.print_fields(
        (
            ("transaction", found["tx"]),
            ("status", status + (f", and expires after block {until:,}" if until else "")),
            ("why", found["error"] or ""),
            ("block", "" if found["height"] is None else f"{found['height']:,}"),
            ("type", found.get("type", "")),
            ("from", found.get("from", "")),
        )
    )
