"""`swarm status`: how the node on this machine does."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import click

from cli import advice, connection, output, screen, standing, view

if TYPE_CHECKING:
    from pathlib import Path

    Json = dict[str, Any]

WATCH_SECONDS = 2.0
NO_NODE = "none runs here: `swarm join` starts it; what follows is told by a temporary one"


@click.command("status")
@click.option("--watch", is_flag=True, help="Show it again every two seconds, until Ctrl-C.")
@connection.options
def command(*, watch: bool, home: Path, as_json: bool) -> None:
    """Show how the node does: what it does or why not, storage, tokens, task, what is wrong, what costs tokens soon.

    \b
    swarm status --watch
    swarm status --json | jq .state
    """  # noqa: D301 - \b is click's
    with contextlib.ExitStack() as stack:
        if watch:
            stack.enter_context(screen.until_interrupted())
        client = stack.enter_context(connection.connect(home, of_home=True))
        if not watch:
            _print(client.status(), as_json=as_json)
            return
        draw = None if as_json else stack.enter_context(screen.drawn())
        while True:
            status = client.status()
            if draw is None:
                output.print_json(status)
            else:
                draw(lines(status))
            threading.Event().wait(WATCH_SECONDS)


def _print(status: Json, *, as_json: bool) -> None:
    if as_json:
        output.print_json(status)
        return
    for line in lines(status):
        click.echo(line)


def lines(status: Json) -> list[str]:
    """What is shown of a node: first what it does, or that it runs for this question only."""
    rows = [("node", NO_NODE)] if status["temporary"] else []
    rows += [*standing.rows(status), *view.fields(status)]
    return output.field_lines((name, advice.typed(value)) for name, value in rows)
