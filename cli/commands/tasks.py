"""`swarm tasks`: the training tasks on the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import connection, output

if TYPE_CHECKING:
    from pathlib import Path


@click.command("tasks", epilog="Example: swarm tasks --json | jq .name")
@connection.options
def command(*, home: Path, as_json: bool) -> None:
    """List the training tasks."""
    with connection.connect(home) as client:
        tasks = client.tasks()
    if as_json:
        output.print_json(tasks)
        return
    if not tasks:
        output.say("no task is posted; `swarm task post FILE` posts one")
        return
    output.print_table(
        ("NAME", "ROUND", "PHASE", "VERSION", "LOSS", "TASK"),
        (
            (
                one["name"],
                f"{one['round']}/{one['rounds']}",
                str(one["phase"]),
                str(one["version"]),
                output.loss(one["loss"]),
                str(one["task"]),
            )
            for one in tasks
        ),
    )
