"""`swarm export`: what a task came to, for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli import connection, output
from swarm.errors import NotFoundError
from swarm.sizes import counted

if TYPE_CHECKING:
    from swarm.client import Client

    Json = dict[str, Any]

MAX_TIMES = 2_000
"""Blocks that are asked for their time; earlier rounds take that of the first of these."""


@click.group("export", epilog="Example: swarm export tensorboard tiny-gpt runs")
def command() -> None:
    """Write what a task came to for other programs."""


@command.command("tensorboard", short_help="Write a task's curves for TensorBoard.")
@click.argument("task")
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@connection.options
def tensorboard(*, task: str, folder: Path, home: Path, as_json: bool) -> None:
    """Write the curves of TASK (a name or an id) into a folder of DIR, for TensorBoard.

    Losses by version, and of each round submissions, scores, pay and blocks; written again, the file is replaced.

    \b
    swarm export tensorboard tiny-gpt runs
    tensorboard --logdir runs
    """  # noqa: D301 - \b is click's
    from swarm.export import events, scalars

    with connection.connect(home) as client:
        watched = client.watch(task)
        seconds = _times(client, watched)
    points = list(scalars.scalars(watched))
    run = folder / f"{watched['name']}-{watched['task'][:8]}"
    count = events.write(run, watched["task"][:16], points, scalars.times(watched, seconds))
    if as_json:
        output.print_json({"path": str(run), "points": count, "rounds": len(watched["rounds"])})
    else:
        click.echo(str(run))
        output.say(f"{counted(count, 'point')} of {counted(len(watched['rounds']), 'round')}")


def _times(client: Client, watched: Json) -> dict[int, float]:
    """When rounds ended, as their blocks say; those of pruned blocks are left out."""
    found: dict[int, float] = {}
    ended = [one for one in watched["rounds"] if one.get("height") is not None]
    for one in ended[-MAX_TIMES:]:
        try:
            found[one["round"]] = client.block(one["height"])["time_ms"] / 1000
        except NotFoundError:
            continue
    return found
