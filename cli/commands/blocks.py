"""`swarm blocks [HEIGHT]`: the newest blocks, or one of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from cli import connection, output

if TYPE_CHECKING:
    from pathlib import Path


@click.command("blocks", epilog="Example: swarm blocks 1200")
@click.argument("height", type=click.IntRange(min=0), required=False)
@click.option(
    "-n", "--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many."
)
@connection.options
def command(*, height: int | None, limit: int, home: Path, as_json: bool) -> None:
    """List the newest blocks, or show the one at HEIGHT with its transactions."""
    with connection.connect(home) as client:
        found = client.blocks(None, limit) if height is None else client.block(height)
    if as_json:
        output.print_json(found)
    elif isinstance(found, dict):
        _print_block(found)
    else:
        output.print_table(
            ("HEIGHT", "TIME", "TXS", "VIEW", "LEADER", "ID"),
            (
                (
                    f"{one['height']:,}",
                    _time(one["time_ms"]),
                    str(one["transactions"]),
                    f"{one['view']:,}",
                    one["leader"] or "",
                    one["id"],
                )
                for one in found
            ),
        )


def _print_block(block: dict[str, Any]) -> None:
    output.print_fields(
        (
            ("height", f"{block['height']:,}"),
            ("id", block["id"]),
            ("time", _time(block["time_ms"])),
            ("epoch, view", f"{block['epoch']:,}, {block['view']:,}"),
            ("leader", block["leader"] or ""),
            ("state root", block["state_root"]),
            ("bytes", f"{block['bytes']:,}"),
        )
    )
    if block["txs"]:
        click.echo()
        output.print_table(
            ("TRANSACTION", "TYPE", "GAS", "OUTCOME", "FROM"),
            (
                (  # of one that cannot be read nothing but the id is known
                    one["id"],
                    one.get("type", "-"),
                    f"{one['gas']:,}" if "gas" in one else "-",
                    "done" if one["ok"] else f"refused: {one['error']}",
                    one.get("from", ""),
                )
                for one in block["txs"]
            ),
        )


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
