"""`swarm pin CID`: fetch content and keep it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import connection, output
from cli.roots import parse_root

if TYPE_CHECKING:
    from pathlib import Path


@click.command("pin")
@click.argument("cid")
@click.option("--label", help="What it is, for `swarm ls`.")
@connection.options
def command(*, cid: str, label: str | None, home: Path, as_json: bool) -> None:
    """Fetch everything that a CID names, keep it until `swarm unpin`, and serve it to others.

    \b
    swarm pin bafybei… --label "the plays"
    """  # noqa: D301 - \b is click's
    root = parse_root(cid)
    with (
        connection.resumable(),
        connection.connect(home) as client,
        output.progress_bar() as progress,
    ):
        pinned = client.pin(root, label, progress)
    if as_json:
        output.print_json(pinned)
        return
    click.echo(pinned["cid"])
    from swarm.sizes import format_size

    size = "" if pinned["size"] is None else f"{format_size(pinned['size'])}, "
    output.say(f"{size}{format_size(pinned['fetched'])} of it fetched")
