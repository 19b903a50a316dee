"""`swarm task post FILE`: post a training task."""

from __future__ import annotations

import tomllib
from pathlib import Path

import click

from cli import connection, output
from swarm.errors import UsageError

MAX_TASK_BYTES = 2**19


@click.group("task", epilog="Example: swarm task post task.toml")
def command() -> None:
    """Post a training task."""


@command.command(
    "post",
    epilog="Example: swarm task post task.toml",
    short_help="Post the task that a TOML file describes.",
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@connection.options
def post(*, file: Path, home: Path, as_json: bool) -> None:
    """Post the task that a TOML file describes; paths in it are relative to the file."""
    with file.open("rb") as source:
        data = source.read(MAX_TASK_BYTES + 1)
    try:
        if len(data) > MAX_TASK_BYTES:
            message = f"more than {MAX_TASK_BYTES:,} bytes"
            raise ValueError(message)  # noqa: TRY301 - one message for every fault
        if not data.strip():
            message = "it is empty"
            raise ValueError(message)  # noqa: TRY301 - likewise
        tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8
        message = f"{file} is not a task file: {error}"
        raise UsageError(message, "docs/guide/tasks.md explains every key") from error
    with connection.connect(home) as client, output.progress_bar() as progress:
        posted = client.post_task(data.decode(), file.parent, progress)
    if as_json:
        output.print_json(posted)
        return
    click.echo(posted["task"])
    for doubt in posted.get("doubts", ()):
        output.say(f"warning: {doubt}")
    output.say(
        f"{posted['name']} starts from {posted['base']};"
        f" watch it: swarm train watch {posted['name']}"
    )
