"""`swarm get CID`: fetch a file or folder by its root CID."""

from __future__ import annotations

from pathlib import Path

import click

from cli import connection, output
from cli.roots import parse_root


@click.command("get")
@click.argument("cid")
@click.option(
    "-o",
    "--output",
    "path",
    type=click.Path(path_type=Path),
    help="Where to write it; the CID in this folder if not given.",
)
@click.option(
    "--from",
    "source",
    metavar="MULTIADDR",
    help="Fetch it by Bitswap from the node of IPFS at this address.",
)
@connection.options
def command(*, cid: str, path: Path | None, source: str | None, home: Path, as_json: bool) -> None:
    """Fetch a file or folder by its CID; every byte is checked against it."""
    root = parse_root(cid)
    with connection.connect(home) as client, output.progress_bar() as progress:
        got = client.get(root, path or Path(root), progress, source)
    if as_json:
        output.print_json(got)
    else:
        click.echo(got["path"])
