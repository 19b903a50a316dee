"""`swarm pause`: hold training or sealing back for a while."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from cli import advice, connection, output

if TYPE_CHECKING:
    from pathlib import Path

PARTS = ["train", "seal", "serve", "gpu", "cpu", "all"]
DEVICES = ("gpu", "cpu")


@click.command("pause")
@click.argument("part", default="all", type=click.Choice(PARTS))
@click.option("--for", "duration", metavar="TIME", help="End by itself after 2h, 90m or 1d12h.")
@connection.options
def command(*, part: str, duration: str | None, home: Path, as_json: bool) -> None:
    """Hold training, sealing or serving back, at once, until it is over or `swarm resume`.

    A round that is being trained is given up; votes, scores and audits go on.
    gpu and cpu mean what runs on them; while nothing is served, nothing is trained either; all is train and seal.
    The pause outlives a restart of the node.

    \b
    swarm pause gpu --for 2h
    """  # noqa: D301 - \b is click's
    from swarm.care.controls import parse_duration
    from swarm.client import Client

    seconds = None if duration is None else parse_duration(duration)
    with Client.of_home(home) as client:
        told = client.pause(part, seconds)
        held = {one["part"] for one in client.status()["held"]} if part in DEVICES else {"train"}
    if as_json:
        output.print_json(told)
    else:
        click.echo(advice.typed(paused(told)))
    if "train" not in held:
        output.say(f"hint: this node does not train on the {part} now: `swarm status` says on what")


def paused(told: dict[str, Any]) -> str:
    """What is held back and until when; empty where nothing is."""
    parts = []
    for one in told.get("paused", ()):
        until = "`swarm resume`"
        if one["until"] is not None:
            until = datetime.fromtimestamp(one["until"]).astimezone().strftime("%Y-%m-%d %H:%M")
        parts.append(f"{one['part']} until {until}")
    if told.get("finishing"):
        parts.append("finishing: the node stops when its round is done")
    return ", ".join(parts)
