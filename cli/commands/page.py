"""`swarm page`: open the node's page in the browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import connection, output
from swarm.errors import NetworkError

if TYPE_CHECKING:
    from pathlib import Path

DOORSTEP = "page.html"


@click.command("page")
@click.option("--no-open", is_flag=True, help="Only print the link; open no browser.")
@connection.options
def command(*, no_open: bool, home: Path, as_json: bool) -> None:
    """Open the page of the running node, and print a link to it.

    The link lets one browser in, once and within ten minutes; that browser is then known for thirty days.

    \b
    ssh -L 4747:127.0.0.1:4747 HOST     to read the page of another machine;
                                        `swarm page --no-open` there prints the link
    """  # noqa: D301 - \b is click's
    if not connection.answers(home):
        message = f"no node runs on {home}"
        raise NetworkError(message, "start one with: swarm join")
    with connection.connect(home) as client:
        page = client.page_link()
        other = None if no_open or as_json else client.page_link()["link"]
    if as_json:
        output.print_json(page)
        return
    click.echo(page["link"])
    if other is not None and not _opened(other, home):
        output.say("no browser could be opened: follow the link above")


def _opened(link: str, home: Path) -> bool:
    """Open a browser; the link goes through a file of this user's, as every user reads the arguments of a process."""
    import webbrowser

    from storage.files import DISK

    path = home / DOORSTEP
    text = (
        f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0;url={link}">\n'
    )
    DISK.replace(path, text.encode())
    return webbrowser.open(path.as_uri())
