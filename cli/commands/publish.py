"""`swarm publish PATH`: store a file or folder; prints its root CID."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli import connection, output
from cli.commands.keep import MAX_REPLICAS, ask_for, make_deal, terms
from cli.names import check_name
from swarm.retrieval import link
from swarm.sizes import counted, format_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from swarm.client import Client

    Json = dict[str, Any]
    Progress = Callable[[str, int, int], None]

REPLICATE_SECONDS = 120.0
"""Keepers that do not hold it by then take their time; the deal stands."""
LOOK_SECONDS = 1.0
WRITING = ("name", "in_place", "replicas", "audits", "price", "yes", "no_wait", "qr")
"""Options of a publication itself."""


@click.command("publish")
@click.argument("path", type=click.Path(exists=True, readable=True, path_type=Path))
@click.option("--name", help="Point this name to it on the ledger.")
@click.option("--only-hash", is_flag=True, help="Only say what the CID would be; needs no node.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Write nothing: say the CID, the size, the chunks, and what of it is new here.",
)
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
@click.option(
    "--no-wait", is_flag=True, help="Do not wait until another peer has shown that it gets it."
)
@click.option("--qr", is_flag=True, help="Show the link as a QR code too.")
@terms
@connection.options
def command(
    *,
    path: Path,
    name: str | None,
    only_hash: bool,
    dry_run: bool,
    preserve_mode: bool,
    in_place: bool,
    replicas: int | None,
    no_wait: bool,
    qr: bool,
    audits: int | None,
    price: str | None,
    yes: bool,
    home: Path,
    as_json: bool,
) -> None:
    """Store a file or folder in the swarm and print its root CID (the one that IPFS gives it).

    It ends when another peer, which was told the CID alone, has fetched a drawn chunk of it.

    \b
    swarm publish ./shakespeare
    swarm publish ./shakespeare --dry-run
    swarm publish ./pictures --in-place
    """  # noqa: D301 - \b is click's
    if only_hash or dry_run:
        _check_writes_nothing("--only-hash" if only_hash else "--dry-run")
        plan = _hash_only if only_hash else _plan
        _tell_plan(plan(home, path, preserve_mode=preserve_mode), as_json=as_json)
        return
    if replicas is None and (audits is not None or price is not None):
        message = "--audits and --price are of a deal, which --replicas asks for"
        raise click.UsageError(message)
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
        if not no_wait:
            with output.progress_bar() as progress:
                if asked is not None:
                    published["kept"] = _replicated(client, published["deal"], progress)
                published["proof"] = client.wait_fetched(published["cid"], progress=progress)
    if temporary:
        output.say(
            f"it lies in {home}; others can fetch it from here while a node runs on that folder: `swarm join`"
        )
    published["link"] = link.link(published["cid"])
    _tell(published, path if in_place else None, as_json=as_json)
    if qr:
        _show_picture(published["link"])


def _check_writes_nothing(flag: str) -> None:
    """Refuse what counts only where something is stored, kept or told."""
    context = click.get_current_context()
    for name in WRITING:
        if context.params[name]:
            message = f"{flag} publishes nothing, so it takes no --{name.replace('_', '-')}"
            raise click.UsageError(message)


def _replicated(client: Client, deal: str, progress: Progress | None) -> Json:
    """Wait, within bounds, until keepers have taken every piece: `seats`, `of`."""
    deadline = time.monotonic() + REPLICATE_SECONDS
    if progress is None:
        output.say(f"waiting for keepers, {REPLICATE_SECONDS:.0f} s at most; the deal stands")
    while True:
        deals = client.keep("list")["deals"]
        one = next((found for found in deals if found["deal"] == deal), None)
        kept = 0 if one is None else one["seats"]
        wanted = 0 if one is None else one["pieces"] * one["replicas"]
        if progress is not None:
            progress("replicate", kept, wanted)
        if one is None or kept >= wanted or time.monotonic() > deadline:
            return {"seats": kept, "of": wanted}
        time.sleep(LOOK_SECONDS)  # noqa: TID251 - a command of its own, where nothing else waits


def _tell(published: Json, in_place: Path | None, *, as_json: bool) -> None:
    if as_json:
        output.print_json(published)
        return
    click.echo(published["cid"])
    size, new = format_size(published["size"]), format_size(published["new_bytes"])
    output.say(f"{size} in {counted(published['chunks'], 'chunk')}, {new} of it new here")
    if in_place is not None:
        output.say(f"nothing was copied: {in_place} must stay as it is; `swarm verify` checks it")
    if "name" in published:
        output.say(f"{published['name']}@{published['version']} points to it")
    if "deal" in published:
        kept = published.get("kept")
        taken = f" ({kept['seats']:,} of {kept['of']:,} taken)" if kept is not None else ""
        output.say(f"deal {published['deal']}{taken}: `swarm keep list` shows who keeps it")
    if "proof" in published:
        _tell_proof(published["cid"], published["proof"])
    output.say(f"link: {published['link']}")


def _tell_proof(cid: str, proof: Json) -> None:
    if proof["peer"] is not None:
        output.say(
            f"peer {proof['peer']} found it by its CID and showed a drawn chunk,"
            f" after {proof['seconds']:.1f} s"
        )
        return
    if not proof["asked"]:
        why = "no other peer is connected"
    else:
        reasons = "; ".join(sorted(set(proof["reasons"].values()))) or "none answered in time"
        why = f"of {counted(proof['asked'], 'peer')} asked in {proof['seconds']:.0f} s, none: {reasons}"
    output.say(f"not shown yet that others get it: {why}")
    output.say(f"hint: see later with `swarm check {cid}`")


def _show_picture(text: str) -> None:
    picture = link.picture(text)
    if picture is None:
        output.say("no QR code: the package `segno` is not installed")
    else:
        click.echo(picture, err=True)


def _plan(home: Path, path: Path, *, preserve_mode: bool) -> Json:
    """By the running node; with none, everything is new where nothing is held, and what is new is not known else."""
    if connection.answers(home):
        from swarm.client import Client

        with Client.of_home(home) as client, output.progress_bar() as progress:
            return client.plan(path, progress, preserve_mode=preserve_mode)
    planned = _hash_only(home, path, preserve_mode=preserve_mode)
    if (home / "chunks").exists():
        output.say(f"no node runs on {home}: what of it is new there is not known")
        return planned | {"new_bytes": None}
    return planned | {"new_bytes": planned["size"]}


def _hash_only(_home: Path, path: Path, *, preserve_mode: bool) -> Json:
    from storage import cid, unixfs
    from swarm.versions.working import RESERVED

    with output.progress_bar() as progress:
        added = unixfs.hash_path(
            path,
            None if progress is None else lambda done, total: progress("hash", done, total),
            preserve_mode=preserve_mode,
            skip=RESERVED,
        )
    return {"cid": cid.text(added.root), "size": added.size, "chunks": added.chunks}


def _tell_plan(planned: Json, *, as_json: bool) -> None:
    if as_json:
        output.print_json(planned)
        return
    click.echo(planned["cid"])
    if "new_bytes" not in planned:
        return
    new = planned["new_bytes"]
    told = f"{format_size(planned['size'])} in {counted(planned['chunks'], 'chunk')}"
    output.say(told if new is None else f"{told}, {format_size(new)} of it new here")
    output.say("nothing was written")
