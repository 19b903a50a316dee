"""`swarm publish PATH`: store a file or folder; prints its root CID."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cli import connection, output
from cli.commands.keep import MAX_REPLICAS, ask_for, make_deal, terms
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
@click.option(
    "--in-place",
    is_flag=True,
    help="Copy nothing: the content stays in your files, which must then stay as they are.",
)
@click.option(
    "--replicas",
    type=click.IntRange(1, MAX_REPLICAS),
    help="Have so many others keep it, for a price that is told first.",
)
@terms
@connection.options
def command(
    *,
    path: Path,
    name: str | None,
    only_hash: bool,
    preserve_mode: bool,
    in_place: bool,
    replicas: int | None,
    audits: int | None,
    price: str | None,
    yes: bool,
    home: Path,
    as_json: bool,
) -> None:
    """Store a file or folder in the swarm and print its root CID (the one that IPFS gives it).

    \b
    swarm publish ./shakespeare
    swarm publish ./pictures --in-place
    """  # noqa: D301 - \b is click's
    if only_hash:
        if in_place:
            message = "--only-hash stores nothing, so it takes no --in-place"
            raise click.UsageError(message)
        if name is not None:
            message = "--only-hash publishes nothing, so it takes no --name"
            raise click.UsageError(message)
        _only_hash(path, preserve_mode=preserve_mode, as_json=as_json)
        return
    if name is not None:
        check_name(name)
    asked = None if replicas is None else ask_for(replicas, audits, price)
    with connection.connect(home) as client:
        with output.progress_bar() as progress:
            published = client.publish(
                path, name, progress, preserve_mode=preserve_mode, in_place=in_place
            )
        temporary = client.status()["temporary"]
        if asked is not None:
            published["deal"] = make_deal(client, published["cid"], asked, yes=yes)["deal"]
    if temporary:
        output.say(
            f"it lies in {home}; others can fetch it from here while a node runs on that folder: `swarm join`"
        )
    _tell(published, path if in_place else None, as_json=as_json)


def _tell(published: dict[str, Any], in_place: Path | None, *, as_json: bool) -> None:
    if as_json:
        output.print_json(published)
        return
    click.echo(published["cid"])
    from swarm.config import format_size

    size, new = format_size(published["size"]), format_size(published["new_bytes"])
    output.say(f"{size} in {published['chunks']:,} chunks, {new} of it new here")
    if in_place is not None:
        output.say(f"nothing was copied: {in_place} must stay as it is; `swarm verify` checks it")
    if "name" in published:
        output.say(f"{published['name']}@{published['version']} points to it")
    if "deal" in published:
        output.say(f"deal {published['deal']}: `swarm keep list` shows who keeps it")


def _only_hash(path: Path, *, preserve_mode: bool, as_json: bool) -> None:
    from storage import cid, unixfs
    from swarm.versions.working import RESERVED

    with output.progress_bar() as progress:
        added = unixfs.hash_path(
            path,
            None if progress is None else lambda done, total: progress("hash", done, total),
            preserve_mode=preserve_mode,
            skip=RESERVED,
        )
    if as_json:
        output.print_json({"cid": cid.text(added.root), "size": added.size, "chunks": added.chunks})
    else:
        click.echo(cid.text(added.root))
