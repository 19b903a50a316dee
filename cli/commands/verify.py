"""`swarm verify [CID]`: read what is held again, say what is bad, and mend it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cli import connection, output
from cli.roots import parse_root
from swarm.sizes import counted, format_size

if TYPE_CHECKING:
    from pathlib import Path

SOMETHING_BAD = 1


@click.command("verify")
@click.argument("cid", required=False)
@click.option("--repair", is_flag=True, help="Fetch what is bad or missing again, from peers.")
@connection.options
def command(*, cid: str | None, repair: bool, home: Path, as_json: bool) -> int:
    """Read everything that is held again, or what is below a CID, and check it against its names.

    What is bad is named by root and path; with --repair exactly that is fetched again.
    Reading everything can take hours: where it was stopped, the next one goes on (for a week).
    The exit code is 0 if all is good and 1 if something bad remains.

    \b
    swarm verify --repair
    """  # noqa: D301 - \b is click's
    root = None if cid is None else parse_root(cid)
    with connection.connect(home, of_home=True) as client, output.progress_bar() as progress:
        found = client.verify(root, progress, repair=repair)
    if as_json:
        output.print_json(found)
    else:
        _tell(found, repair=repair)
    return SOMETHING_BAD if found["remaining"] else 0


def _tell(found: dict[str, Any], *, repair: bool) -> None:
    for bad in found["bad"]:
        place = f"{bad['root']}/{bad['path']}".rstrip("/")
        state = f"{bad['remaining']:,} bad" if bad["remaining"] else "repaired"
        told = f"{place}  {counted(bad['chunks'], 'chunk')}, {state}"
        if bad["file"] is not None:
            told += f"; {bad['file']} is not what was published"
        if bad["why"] is not None and bad["remaining"]:
            told += f"; {bad['why']}"
        click.echo(output.printable(told))
    if found["more"]:
        output.say(f"and {counted(found['more'], 'more path')}")
    if found["unwanted"]:
        output.say(
            f"{counted(found['unwanted'], 'bad chunk')} of what nothing keeps any more: that does no harm"
        )
    output.say(
        f"{counted(found['chunks'], 'chunk')} ({format_size(found['bytes'])}) read,"
        f" {found['remaining']:,} bad"
    )
    if found["bytes_earlier"]:
        earlier = format_size(found["bytes_earlier"])
        output.say(f"{earlier} of them were read before a verification that was stopped went on")
    if found["remaining"] and not repair:
        output.say("hint: `swarm verify --repair` fetches them from peers")
