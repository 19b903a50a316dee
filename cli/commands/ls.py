"""`swarm ls [CID]`: what this node keeps, or what stands in a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cli import connection, output
from cli.roots import parse_place

if TYPE_CHECKING:
    from pathlib import Path

    from swarm.client import Client

CLAIMED = " ?"


@click.command("ls")
@click.argument("cid", metavar="[CID[/PATH]]", required=False)
@connection.options
def command(*, cid: str | None, home: Path, as_json: bool) -> None:
    """List what this node keeps, with sizes; or what stands in a folder of the swarm.

    A pin is yours and stays until `swarm unpin`; a hold is the node's, for a task.

    \b
    swarm ls
    swarm ls bafybei…/plays
    """  # noqa: D301 - \b is click's
    with connection.connect(home, of_home=cid is None) as client:
        if cid is None:
            _kept(client.kept(), as_json=as_json)
        else:
            _entries(client, cid, as_json=as_json)


def _kept(found: dict[str, Any], *, as_json: bool) -> None:
    from swarm.sizes import format_size

    if as_json:
        output.print_json(found["kept"])
        return
    rows = [
        (
            one["cid"],
            _size(one["size"]) + ("" if one["counted"] or one["size"] is None else CLAIMED),
            one["kind"],
            output.one_line(one["label"]),
        )
        for one in found["kept"]
    ]
    output.print_table(("cid", "size", "kept as", "label"), rows)
    if any(size.endswith(CLAIMED) for _, size, *_ in rows):
        output.say(
            f"{CLAIMED.strip()}: as its author says; it is not all here, or too large to count"
        )
    usage = found["usage"]
    told = f"{format_size(usage['used'])} used, {format_size(usage['free'])} free"
    if usage["in_place"]:
        told += f"; {format_size(usage['in_place'])} more lie in your own files"
    if usage["reclaimable"]:
        told += f"; `swarm gc` gives up to {format_size(usage['reclaimable'])} back"
    output.say(told)


def _entries(client: Client, place: str, *, as_json: bool) -> None:
    root, path = parse_place(place)
    found = client.look(root, path)
    name = path.rpartition("/")[2]
    entries = client.entries(root, path) if found["kind"] == "folder" else [{"name": name, **found}]
    if as_json:
        output.print_json(entries)
        return
    rows = [
        (one["cid"], _size(one["size"]), one["kind"], output.one_line(one["name"]))
        for one in entries
    ]
    output.print_table(("cid", "size", "kind", "name"), rows)


def _size(size: int | None) -> str:
    from swarm.sizes import format_size

    return "-" if size is None else format_size(size)
