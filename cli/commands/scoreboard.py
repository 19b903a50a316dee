"""`swarm scoreboard TASK`: who contributed what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cli import connection, output
from cli.money import format_tokens

if TYPE_CHECKING:
    from pathlib import Path


@click.command("scoreboard", epilog="Example: swarm scoreboard tiny-gpt")
@click.argument("task")
@connection.options
def command(*, task: str, home: Path, as_json: bool) -> None:
    """Show each round of a task (by name or id): what was handed in, its score, what it was paid.

    A score is the share of the validation loss that an update takes away: 0.01 is one part in a hundred.
    With --json: one object a round.
    """
    with connection.connect(home) as client:
        board = client.scoreboard(task)
    if as_json:
        about = {"task": board["task"], "name": board["name"]}
        output.print_json({**about, **one} for one in board["rounds"])
        return
    if not board["rounds"]:
        output.say(f"{board['name']} has no settled round yet")
        return
    rows = []
    for one in board["rounds"]:
        known = one["base_loss"] is not None or one["loss"] is not None
        change = f"{output.loss(one['base_loss'])} -> {output.loss(one['loss'])}" if known else "-"
        left = (str(one["round"]), change)
        submissions = one["submissions"]
        if not submissions:
            rows.append((*left, "nobody", "", "", ""))
        for at, entry in enumerate(submissions):
            score = "" if entry["score"] is None else f"{entry['score']:+.5f}"
            verdict = _verdict(entry)
            first = left if at == 0 else ("", "")
            rows.append((*first, entry["worker"], score, format_tokens(entry["paid"]), verdict))
    output.print_table(("ROUND", "LOSS", "WORKER", "SCORE", "PAID", "VERDICT"), rows)


def _verdict(entry: dict[str, Any]) -> str:
    if entry["accepted"] is None:
        return "not scored yet"
    if entry["accepted"]:
        return "accepted"
    return f"refused: {entry['reason']}" if entry["reason"] else "refused"
