"""`swarm peers`: who is connected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cli import connection, output, view

if TYPE_CHECKING:
    from pathlib import Path


@click.command("peers", epilog="Example: swarm peers")
@connection.options
def command(*, home: Path, as_json: bool) -> None:
    """List the connected peers."""
    with connection.connect(home, of_home=True) as client:
        peers = client.peers()
    if as_json:
        output.print_json(peers)
        return
    if not peers:
        output.say("no peer is connected")
        return
    output.print_table(
        ("PEER", "ADDRESS", "HEAD", "FOR", "VERSION"),
        (
            (
                one["peer"],
                one["address"],
                f"{one['head']:,}" if one["member"] else _stranger(one),
                view.duration(one["seconds"]),
                one["version"] or "",
            )
            for one in peers
        ),
    )


def _stranger(peer: dict[str, Any]) -> str:
    """Why a peer's head is not known: it has not said yet who it is, or is of another network."""
    return "another network" if peer["version"] else "not greeted yet"
