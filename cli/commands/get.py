"""`swarm get CID[/PATH]`: fetch a file or folder by its root CID, or what stands at a path below it."""

from __future__ import annotations

from pathlib import Path

import click

from cli import connection, output
from cli.roots import parse_place
from swarm.errors import UsageError


@click.command("get", epilog="Example: swarm get bafybei…/train/0001.parquet -o first.parquet")
@click.argument("cid", metavar="CID[/PATH]")
@click.option(
    "-o",
    "--output",
    "path",
    type=click.Path(path_type=Path),
    help="Where to write it; the CID, or the last name of PATH, in this folder if not given.",
)
@click.option(
    "--from",
    "source",
    metavar="MULTIADDR",
    help="Fetch all of a CID by Bitswap from the node of IPFS at this address.",
)
@connection.options
def command(*, cid: str, path: Path | None, source: str | None, home: Path, as_json: bool) -> None:
    """Fetch a file or folder by its CID, or what stands at a path below it; every byte is checked against the CID."""
    root, inside = parse_place(cid)
    if inside and source is not None:
        message = "--from fetches all of a CID, and no path below it"
        raise UsageError(message, f"swarm get {root} --from {source}")
    with (
        connection.resumable(),
        connection.connect(home) as client,
        output.progress_bar() as progress,
    ):
        if inside:
            name = inside.rpartition("/")[2]
            found = client.look(root, inside)["cid"]
        else:
            name = found = root
        got = client.get(found, path or Path(name), progress, source)
    if as_json:
        output.print_json(got)
    else:
        click.echo(got["path"])
