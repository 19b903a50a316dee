"""`swarm fetch NAME`: the latest agreed checkpoint, or any other thing with a name."""

from __future__ import annotations

from pathlib import Path

import click

from cli import connection, output
from cli.names import parse_reference


@click.command("fetch")
@click.argument("name", metavar="NAME[@VERSION]")
@click.option(
    "-o",
    "--output",
    "path",
    type=click.Path(path_type=Path),
    help="The folder to write; one with the name, in this folder, if not given.",
)
@connection.options
def command(*, name: str, path: Path | None, home: Path, as_json: bool) -> None:
    """Fetch what a name points to: for a model, a folder with model.safetensors and config.json.

    The ledger's entry is proven against a finalized block, and every byte against the entry's CID.
    """
    bare, version = parse_reference(name)
    with connection.connect(home) as client, output.progress_bar() as progress:
        fetched = client.fetch(bare, version, path or Path(bare), progress)
    if as_json:
        output.print_json(fetched)
        return
    click.echo(fetched["path"])
    output.say(
        f"{fetched['name']}@{fetched['version']} is {fetched['cid']}, proven at height {fetched['height']:,}"
    )
