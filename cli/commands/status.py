"""`swarm status`: how the node on this machine does."""

from __future__ import annotations

import threading
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from cli import connection, output, view
from swarm.config import format_size

if TYPE_CHECKING:
    from pathlib import Path

    Json = dict[str, Any]

WATCH_SECONDS = 2.0


@click.command("status")
@click.option("--watch", is_flag=True, help="Show it again every two seconds, until Ctrl-C.")
@connection.options
def command(*, watch: bool, home: Path, as_json: bool) -> None:
    """Show how the node does: what it does or why not, storage, tokens, task, what is wrong and what is about to cost."""
    with connection.connect(home) as client:
        while True:
            status = client.status()
            if as_json:
                output.print_json(status)
            else:
                if watch:
                    click.clear()
                output.print_fields([*standing(status), *view.fields(status)])
            if not watch:
                break
            threading.Event().wait(WATCH_SECONDS)


def standing(status: Json) -> list[tuple[str, str]]:
    """What the node does, why parts of it do not, and what costs tokens soon."""
    rows: list[tuple[str, str]] = []
    if (state := status.get("state")) is not None:
        word = state["code"].replace("_", " ")
        rows.append(("state", f"{word}: {state['why']}" + _until(state["until"], state["why"])))
    held = status.get("held", ())
    rows += [(one["part"], one["why"] + _until(one["until"], one["why"])) for one in held]
    if status.get("finishing"):
        rows.append(("finishing", "the node stops when its round is done"))
    for one in status.get("warnings", ()):
        left = "" if one["seconds"] is None else f" (in {view.duration(one['seconds'])})"
        rows.append(("warning", one["why"] + left))
    if (space := status.get("space")) is not None:
        rows.append(("space", _space(space)))
    return rows


def _until(seconds: float | None, why: str) -> str:
    if seconds is None or "until" in why:
        return ""
    return f", until {datetime.fromtimestamp(seconds).astimezone().strftime('%Y-%m-%d %H:%M')}"


def _space(space: Json) -> str:
    size = {name: format_size(value) for name, value in space.items()}
    text = f"{size['lent']} lent: {size['used']} used, {size['sealed']} sealed, {size['left']} left"
    text += f"; {size['reclaimable']} reclaimable; disk {size['disk_free']} of {size['disk']} free"
    return text + (f", {size['short']} too few" if space["short"] else "")
