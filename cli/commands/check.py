"""`swarm check CID`: who holds it, and who gets it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cli import connection, output
from cli.roots import parse_root
from swarm.errors import NotFoundError
from swarm.retrieval import link
from swarm.sizes import counted, format_size

if TYPE_CHECKING:
    from pathlib import Path

    Json = dict[str, Any]

MAX_DRAWS = 16


@click.command("check")
@click.argument("cid")
@click.option(
    "--draws",
    type=click.IntRange(1, MAX_DRAWS),
    help="Chunks that each holder has to show.  [default: 3]",
)
@click.option("--qr", is_flag=True, help="Show the link as a QR code too.")
@connection.options
def command(*, cid: str, draws: int | None, qr: bool, home: Path, as_json: bool) -> None:
    """Ask other peers for drawn chunks of a CID: how many hold it, how fast they are, and why others fail.

    Peers that do not hold it are asked to fetch a chunk, knowing nothing but the CID.
    It ends with exit code 3 where no other peer holds it and none gets it.

    Example: swarm check bafybei…
    """
    root = parse_root(cid)
    with connection.connect(home) as client, output.progress_bar() as progress:
        found = client.check(root, draws, progress)
    found["link"] = link.link(root)
    if as_json:
        output.print_json(found)
    else:
        _tell(found)
    if qr:
        picture = link.picture(found["link"])
        click.echo(picture or "no QR code: the package `segno` is not installed", err=True)
    if not found["replicas"] and not found["fetched"]:
        message = f"no other peer holds {root}, and none gets it"
        hint = "it lies here: is this node reachable? see `swarm doctor`" if found["here"] else None
        raise NotFoundError(message, hint)


def _tell(found: Json) -> None:
    output.print_fields(
        (
            ("root", found["cid"]),
            ("here", "yes" if found["here"] else "no"),
            ("announced by", counted(found["announced"], "other peer")),
            ("replicas", f"{counted(found['replicas'], 'other peer')} showed all that was drawn"),
            (
                "fetched by",
                f"{found['fetched']:,} of {counted(found['asked_to_fetch'], 'peer')} that held nothing of it",
            ),
            ("link", found["link"]),
        )
    )
    if found["peers"]:
        click.echo()
        output.print_table(
            ("PEER", "ASKED TO", "SHOWN", "RATE", "WHY NOT"),
            (
                (
                    one["peer"],
                    "show" if one["way"] == "held" else "fetch",
                    f"{one['shown']}/{one['drawn']}",
                    "-" if one["rate"] is None else f"{format_size(int(one['rate']))}/s",
                    one["reason"] or "",
                )
                for one in found["peers"]
            ),
        )
