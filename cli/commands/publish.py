"""`swarm publish PATH`: store a file or folder; prints its root CID."""

from __future__ import annotations

from pathlib import Path

import click

from cli import connection, output
from cli.names import check_name


@click.command("publish")
@click.argument("path", type=click.Path(exists=True, readable=True, path_type=Path))
@click.option("--name", help="Point this name to it on the ledger.")
@click.option("--only-hash", is_flag=True, help="Only say what the CID would be; needs no node.")
@click.option(
    "--preserve-mode",
    is_flag=True,
    help="Keep who may read, write and execute each file; the CID is another one then.",
)
@connection.options
def command(
    *,
    path: Path,
    name: str | None,
    only_hash: bool,
    preserve_mode: bool,
    home: Path,
    as_json: bool,
) -> None:
    """Store a file or folder in the swarm and print its root CID (the one that IPFS gives it)."""
    if only_hash:
        if name is not None:
            message = "--only-hash publishes nothing, so it takes no --name"
            raise click.UsageError(message)
        _only_hash(path, preserve_mode=preserve_mode, as_json=as_json)
        return
    if name is not None:
        check_name(name)
    with connection.connect(home) as client, output.progress_bar() as progress:
        published = client.publish(path, name, progress, preserve_mode=preserve_mode)
        temporary = client.status()["temporary"]
    if temporary:
        output.say(
            f"it lies in {home}; others can fetch it from here while a node runs on that folder: `swarm join`"
        )
    if as_json:
        output.print_json(published)
        return
    click.echo(published["cid"])
    from swarm.config import format_size

    size, new = format_size(published["size"]), format_size(published["new_bytes"])
    output.say(f"{size} in {published['chunks']:,} chunks, {new} of it new here")
    if name is not None:
        output.say(f"{name}@{published['version']} points to it")


def _only_hash(path: Path, *, preserve_mode: bool, as_json: bool) -> None:
    from storage import cid, unixfs

    with output.progress_bar() as progress:
        added = unixfs.hash_path(
            path,
            None if progress is None else lambda done, total: progress("hash", done, total),
            preserve_mode=preserve_mode,
        )
    if as_json:
        output.print_json({"cid": cid.text(added.root), "size": added.size, "chunks": added.chunks})
    else:
        click.echo(cid.text(added.root))
